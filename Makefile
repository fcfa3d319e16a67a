# Sluice. `make` builds release; `make help` lists the targets.
#
# BUILD=release|debug|asan|tsan|fuzz picks the flags; everything made goes to build/$(BUILD).
# PLANT=name builds one planted bug (tests/planted.txt) into build/$(BUILD)-name: a check must fail there.
# SYSROOT and ARCH: for another machine than this (deploy/cross.sh), into build/$(BUILD)-$(ARCH).

BUILD ?= release
PLANT ?=
SYSROOT ?=
OUT   := build/$(BUILD)$(if $(PLANT),-$(PLANT))$(if $(SYSROOT),-$(ARCH))
GEN   := $(OUT)/gen

CC      := gcc
CSTD    := -std=gnu17
WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
           -Wvla -Wformat=2 -Wundef -Wno-unused-parameter -Werror
ARCH    := $(shell uname -m)
ifeq ($(ARCH),x86_64)
MARCH   := -march=x86-64-v2
else
MARCH   := -march=armv8-a+crc
endif
HARDEN  := -fstack-protector-strong -fPIE $(if $(SYSROOT),--sysroot=$(SYSROOT))
CFLAGS_release := -O2 -g -D_FORTIFY_SOURCE=2
CFLAGS_debug   := -O0 -g3
CFLAGS_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
# TSan does not model fences; what wake.h orders with one is atomic anyway.
CFLAGS_tsan    := -O1 -g -fno-omit-frame-pointer -fsanitize=thread -Wno-tsan
CFLAGS_fuzz    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all
LDFLAGS_asan   := -fsanitize=address,undefined
LDFLAGS_tsan   := -fsanitize=thread
LDFLAGS_fuzz   := -fsanitize=address,undefined
ifeq ($(BUILD),fuzz)
CC      := clang
WARN    += -Wno-gnu-alignof-expression
endif
ifeq ($(CFLAGS_$(BUILD)),)
$(error BUILD=$(BUILD) is not one of release, debug, asan, tsan, fuzz)
endif

PKGS := liburing libuv libfyaml jansson libsodium openssl libxxhash libxdp libbpf
CPPFLAGS := -D_GNU_SOURCE -I. -Iuserspace -isystem $(GEN) $(if $(PLANT),-DPLANT_$(PLANT))
CFLAGS   := $(CSTD) $(WARN) $(MARCH) $(HARDEN) $(CFLAGS_$(BUILD)) -MD -MP
LDFLAGS  := -pie -Wl,-z,relro,-z,now $(LDFLAGS_$(BUILD)) $(if $(SYSROOT),--sysroot=$(SYSROOT))
LDLIBS    = -lprotobuf-nanopb $(shell pkg-config --libs $(PKGS)) -lraft -lzstd -lpthread

# The programs for the kernel: the same for every BUILD. x86 headers ask for the machine's name.
BPF_CC     := clang
BPF_CFLAGS := -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -target bpf -mcpu=v3 -D__$(ARCH)__ \
              -I$(SYSROOT)/usr/include/$(ARCH)-linux-gnu $(if $(PLANT),-DPLANT_$(PLANT))
BPFTOOL    := $(or $(shell PATH="$$PATH:/usr/sbin:/sbin" command -v bpftool),bpftool)

# --- what is built from what --------------------------------------------------------------------
PROTO     := $(wildcard proto/*.proto)
GEN_C     := $(PROTO:%.proto=$(GEN)/%.pb.c)
GEN_H     := $(PROTO:%.proto=$(GEN)/%.pb.h)
BPF       := $(wildcard bpf/*.bpf.c tests/lib/*.bpf.c)
SKEL_H    := $(BPF:%.bpf.c=$(GEN)/%.skel.h)
MAINS     := userspace/main.c userspace/cli/main.c
LIB_SRC   := $(filter-out $(MAINS),$(wildcard userspace/*.c userspace/*/*.c cluster/*.c))
LIB_OBJ   := $(LIB_SRC:%.c=$(OUT)/%.o) $(GEN_C:%.c=%.o)
CORE      := $(OUT)/core.a
TESTLIB_O := $(patsubst %.c,$(OUT)/%.o,$(filter-out $(BPF),$(wildcard tests/lib/*.c)))
TESTLIB   := $(OUT)/tests.a
UNIT      := $(patsubst tests/unit/%.c,$(OUT)/unit/%,$(wildcard tests/unit/test_*.c))
FUZZ      := $(patsubst tests/fuzz/%.c,$(OUT)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
BENCH     := $(patsubst tests/bench/%.c,$(OUT)/bench/%,$(wildcard tests/bench/bench_*.c))

.PHONY: all help deps test demo fuzz sim sim-mutants bench bench-peers check-full check-netns install deb cross tidy clean
.DELETE_ON_ERROR:
.SECONDARY:

all: $(OUT)/sluiced $(OUT)/sluice $(OUT)/libsluice.a ## build sluiced, sluice and libsluice (BUILD=release|debug|asan|tsan)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

deps: ## install the packages that the build and the tests need
	@deploy/deps.sh

# The engine's older releases lose acknowledged entries: refuse them before anything is compiled, in
# every run, as a package may have been replaced since the last.
.PHONY: raft-ok
raft-ok:
	@v=$$(pkg-config --modversion raft 2>/dev/null) || { echo "sluice needs libraft >= 0.22 (package libraft-dev); none is installed: run deploy/deps.sh" >&2; exit 1; }; \
	 pkg-config --atleast-version=0.22 raft || { echo "sluice needs libraft >= 0.22 and found $$v, which loses acknowledged entries: run deploy/deps.sh" >&2; exit 1; }

$(GEN)/%.pb.c $(GEN)/%.pb.h &: %.proto %.options | raft-ok
	@mkdir -p $(@D)
	@protoc --plugin=protoc-gen-nanopb=/usr/bin/protoc-gen-nanopb -I. \
	  --nanopb_out="-q -f$*.options:$(GEN)" $<

$(GEN)/%.o: $(GEN)/%.c $(GEN_H)
	@$(CC) $(CPPFLAGS) $(filter-out -Werror,$(CFLAGS)) -c -o $@ $<

$(OUT)/%.bpf.o: %.bpf.c
	@mkdir -p $(@D)
	@echo "  BPF $<"
	@$(BPF_CC) $(BPF_CFLAGS) -MD -MP -c -o $@ $<

$(GEN)/%.skel.h: $(OUT)/%.bpf.o
	@mkdir -p $(@D)
	@$(BPFTOOL) gen skeleton $< name $(*F) >$@

$(OUT)/%.o: %.c $(GEN_H) $(SKEL_H) | raft-ok
	@mkdir -p $(@D)
	@echo "  CC $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(CORE): $(LIB_OBJ)
	@rm -f $@
	@ar rcs $@ $^

# An archive, so that a test is linked only with the helpers that it uses.
$(TESTLIB): $(TESTLIB_O)
	@rm -f $@
	@ar rcs $@ $^

$(OUT)/sluiced: $(OUT)/userspace/main.o $(CORE)
	@echo "  LD $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(OUT)/sluice: $(OUT)/userspace/cli/main.o $(CORE)
	@echo "  LD $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# What a producer links with: the client, and of the rest only frames and TLS.
LIBSLUICE := $(patsubst %.c,$(OUT)/%.o,$(wildcard userspace/client/*.c) userspace/base/frame.c userspace/base/wire.c userspace/base/utf8.c \
               userspace/base/tls.c userspace/base/tls_context.c userspace/base/certificate.c) \
             $(GEN)/proto/event.pb.o $(GEN)/proto/wire.pb.o
$(OUT)/libsluice.a: $(LIBSLUICE)
	@rm -f $@
	@ar rcs $@ $^

# What the demo sends besides, as root.
$(OUT)/flood: $(OUT)/deploy/demo/flood.o
	@echo "  LD $@"
	@$(CC) $(LDFLAGS) -o $@ $^

# The line between two regions, for the tests in namespaces.
$(OUT)/wan: $(OUT)/tests/netns/wan.o
	@echo "  LD $@"
	@$(CC) $(LDFLAGS) -o $@ $^

# That it is enough, and that C++ takes its header.
UNIT += $(OUT)/unit/test_libsluice_cxx
$(OUT)/unit/test_libsluice_cxx: tests/unit/test_libsluice_cxx.cc $(OUT)/libsluice.a
	@mkdir -p $(@D)
	@$(if $(filter fuzz,$(BUILD)),clang++,g++) -std=c++17 -Wall -Wextra -Werror -Iuserspace $(CFLAGS_$(BUILD)) $(LDFLAGS) -o $@ $^ -lprotobuf-nanopb -lssl -lcrypto -lpthread

$(OUT)/unit/%: $(OUT)/tests/unit/%.o $(TESTLIB) $(CORE)
	@mkdir -p $(@D)
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

$(OUT)/sim: $(patsubst %.c,$(OUT)/%.o,$(wildcard tests/sim/*.c)) $(TESTLIB) $(CORE)
	@echo "  LD $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(OUT)/bench/%: $(OUT)/tests/bench/%.o $(TESTLIB) $(CORE)
	@mkdir -p $(@D)
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

# The load for programs of others, each by a client of its own.
PEERS := $(addprefix $(OUT)/peers/,sluice nats etcd)
$(OUT)/peers/etcd: LDLIBS += -lnghttp2
$(OUT)/peers/%: $(OUT)/tests/bench/peers/%.o $(OUT)/tests/bench/peers/drive.o $(TESTLIB) $(CORE)
	@mkdir -p $(@D)
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

# A fuzz target is linked with libFuzzer in BUILD=fuzz and with a replaying main elsewhere.
$(OUT)/fuzz/%: $(OUT)/tests/fuzz/%.o $(TESTLIB) $(CORE) $(if $(filter-out fuzz,$(BUILD)),$(OUT)/tests/fuzz/replay.o)
	@mkdir -p $(@D)
	@$(CC) $(LDFLAGS) $(if $(filter fuzz,$(BUILD)),-fsanitize=fuzzer) -o $@ $^ $(LDLIBS) -lcmocka

.PHONY: unit fuzzers benches peers
unit: $(UNIT)
fuzzers: $(FUZZ)
benches: $(BENCH)
peers: $(PEERS)

test: ## install what is missing, build, and run the tests (<= 10 minutes)
	@deploy/deps.sh
	@tests/run.sh quick

check-full: ## the tests with every sanitizer, long campaigns, all planted bugs and fuzzing
	@deploy/deps.sh
	@tests/run.sh full

check-netns: ## three, four and six daemons in network namespaces, with every fault, under load (<= 10 minutes, root)
	@deploy/deps.sh
	@tests/run.sh netns

demo: ## install what is missing, build, and show a node at work (exit 0 only if every account balances)
	@deploy/deps.sh
	@$(MAKE) -s -j$$(nproc) BUILD=release all $$([ $$(id -u) != 0 ] || echo build/release/flood)
	@deploy/demo/demo.sh build/release

FUZZ_SECONDS ?= 20
fuzz: ## run every fuzz target for FUZZ_SECONDS (default 20) from its corpus
	@deploy/deps.sh
	@$(MAKE) -s -j$$(nproc) BUILD=fuzz fuzzers
	@tests/fuzz/run.sh build/fuzz/fuzz $(FUZZ_SECONDS)

SEEDS ?= 200
sim: $(OUT)/sim ## SEEDS=n new runs of a simulated cluster
	@GLIBC_TUNABLES=glibc.malloc.hugetlb=1 $(OUT)/sim -n $(SEEDS) -j $$(nproc)

sim-mutants: ## plant bugs in the cluster and see the simulator find them
	@tests/sim/mutants.sh

bench: ## measure: lines of "bench NAME VALUE UNIT"
	@deploy/deps.sh
	@$(MAKE) -s -j$$(nproc) BUILD=release all benches build/release/wan
	@tests/bench/run.sh build/release

bench-peers: ## install NATS and etcd and measure them beside a cluster of three
	@deploy/deps.sh peers
	@$(MAKE) -s -j$$(nproc) BUILD=release all peers
	@tests/bench/peers.sh build/release

# --- installing ---------------------------------------------------------------------------------
PREFIX  ?= /usr/local
BINDIR  ?= $(PREFIX)/bin
SBINDIR ?= $(PREFIX)/sbin
LIBDIR  ?= $(PREFIX)/lib
UNITDIR ?= $(PREFIX)/lib/systemd/system
VERSION := $(shell sed -n 's/^\#define SLUICE_VERSION "\(.*\)"/\1/p' userspace/client/sluice.h)
DOC     := $(DESTDIR)$(PREFIX)/share/doc/sluice

install: all ## install under PREFIX (/usr/local) and /etc/sluice, or all of it under DESTDIR
	install -D -m755 $(OUT)/sluice $(DESTDIR)$(BINDIR)/sluice
	install -D -m755 $(OUT)/sluiced $(DESTDIR)$(SBINDIR)/sluiced
	install -D -m644 $(OUT)/libsluice.a $(DESTDIR)$(LIBDIR)/libsluice.a
	install -D -m644 userspace/client/sluice.h $(DESTDIR)$(PREFIX)/include/sluice.h
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(UNITDIR) $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man8
	sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@VERSION@|$(VERSION)|' deploy/sluice.pc.in >$(DESTDIR)$(LIBDIR)/pkgconfig/sluice.pc
	install -D -m644 -t $(DESTDIR)$(PREFIX)/share/sluice/proto/proto proto/event.proto proto/wire.proto
	install -m644 deploy/man/sluice.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m644 deploy/man/sluiced.8 $(DESTDIR)$(PREFIX)/share/man/man8/
	sed -e 's|@SBINDIR@|$(SBINDIR)|' deploy/systemd/sluiced.service >$(DESTDIR)$(UNITDIR)/sluiced.service
	install -D -m644 deploy/systemd/sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/sluice.conf
	install -D -m644 deploy/systemd/tmpfiles.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/sluice.conf
	install -D -m644 -t $(DOC) README.md ARCHITECTURE.md deploy/RUNBOOK.md deploy/systemd/xdp.conf
	install -D -m644 -t $(DOC)/two-regions deploy/config/two-regions/*.yaml
	install -d $(DESTDIR)/etc/sluice
	test -e $(DESTDIR)/etc/sluice/sluiced.yaml || \
	  sed -e 's|^  dir: \./sluice-data|  dir: /var/lib/sluice|' deploy/config/sluiced.yaml >$(DESTDIR)/etc/sluice/sluiced.yaml

deb: ## build Debian packages into build/deb, checked by lintian
	@deploy/deps.sh deb
	@deploy/debian/make.sh

cross: ## build for arm64, and run that in an emulator
	@deploy/cross.sh

tidy: ## check style, layout and dependency direction
	@tests/tidy.sh

clean: ## remove everything that was built
	rm -rf build

-include $(shell find $(OUT) -name '*.d' 2>/dev/null)
