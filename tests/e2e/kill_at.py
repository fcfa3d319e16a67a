#!/usr/bin/python3
"""kill_at.py STOP COMMAND... - runs a command and kills it (SIGKILL) at its STOP-th stop by ptrace: one before
and one after every system call. With STOP 0 it runs to its end.

Prints how many stops there were. Exit: 0 killed, 1 it ended before, or the command's end with STOP 0; 77 where
ptrace is not allowed.
"""
import ctypes
import os
import signal
import sys

TRACEME, SYSCALL, SETOPTIONS = 0, 24, 0x4200
EXITKILL, SYSGOOD = 0x100000, 1

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def main():
    stop, command, stops = int(sys.argv[1]), sys.argv[2:], 0
    pid = os.fork()
    if pid == 0:
        if libc.ptrace(TRACEME, 0, None, None) != 0:
            os._exit(77)
        os.execv(command[0], command)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status):
        print("ptrace is not allowed here")
        return 77
    if libc.ptrace(SETOPTIONS, pid, None, EXITKILL | SYSGOOD) != 0:
        os.kill(pid, signal.SIGKILL)
        return 77
    passed_on = 0
    while True:
        libc.ptrace(SYSCALL, pid, None, passed_on)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            print(stops)
            return os.waitstatus_to_exitcode(status) if stop == 0 else 1
        passed_on = os.WSTOPSIG(status)
        if passed_on == signal.SIGTRAP:  # it has started itself anew, as TSan's runtime may
            passed_on = 0
            continue
        if passed_on != signal.SIGTRAP | 0x80:
            continue
        passed_on = 0
        stops += 1
        if stops == stop:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            print(stops)
            return 0


sys.exit(main())
