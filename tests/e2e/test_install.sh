#!/usr/bin/env bash
# test_install.sh - `make install`: what it puts where, that a configuration is never overwritten, that the daemon starts
# with the one that comes with it, that a producer can be linked by pkg-config alone, and what the systemd unit leaves it.
. "$(dirname "$0")/lib.sh"

tree=$work/tree
put() { make -s -C "$root" BUILD="$(basename "$bin")" DESTDIR="$tree" PREFIX=/usr install; }
exits 0 put

for f in usr/bin/sluice usr/sbin/sluiced usr/include/sluice.h usr/lib/libsluice.a usr/lib/systemd/system/sluiced.service \
  usr/lib/sysusers.d/sluice.conf usr/lib/tmpfiles.d/sluice.conf usr/share/man/man1/sluice.1 usr/share/man/man8/sluiced.8 \
  usr/share/sluice/proto/proto/wire.proto; do
  [ -s "$tree/$f" ] || fail "$f is not installed"
done
expect "$("$tree/usr/bin/sluice" --version)" "sluice $(sed -n 's/^#define SLUICE_VERSION "\(.*\)"/\1/p' "$root/userspace/client/sluice.h")" 'the version'
grep -q '^ExecStart=/usr/sbin/sluiced ' "$tree/usr/lib/systemd/system/sluiced.service" || fail 'the unit starts another program'
! grep -rn '@[A-Z]*@' "$tree/usr/lib/systemd" "$tree/usr/lib/pkgconfig" || fail 'a placeholder is left'
done_with 'make install puts everything where the unit expects it'

for n in 1 2 3 4 5 6; do
  sample=$tree/usr/share/doc/sluice/two-regions/node$n.yaml
  exits 0 sluice config check "$sample"
  exits 0 sluice config show --file "$sample"
  says "^node.id  *$n  "
  says "^node.region  *$(((n + 2) / 3))  "
done
done_with 'the six configurations for two regions are good'

config=$tree/etc/sluice/sluiced.yaml
exits 0 sluice config check "$config"
grep -q '^  dir: /var/lib/sluice$' "$config" || fail 'the data are not kept under /var/lib/sluice'
echo '# mine' >>"$config"
exits 0 put
expect "$(tail -n 1 "$config")" '# mine' 'the configuration after a second install'
done_with 'a configuration that is there stays as it is'

sed -i -e "s|^  port: 7400|  port: $port|; s|^  dir: .*|  dir: $data|; s|^  socket: .*|  socket: $SLUICE_SOCKET|" "$config"
"$tree/usr/sbin/sluiced" --config "$config" >>"$work/log" 2>&1 & node=$!
until_true 'the installed daemon answers' sluice status
exits 0 "$tree/usr/bin/sluice" send --generate 100 --address "$to"
stop_node
done_with 'the installed daemon takes events with the configuration that came with it'

if command -v pkg-config >/dev/null && [ "$(basename "$bin")" = release ]; then
  printf '#include <sluice.h>\nint main(void) { return sluice_reason_is_transient(0); }\n' >"$work/p.c"
  export PKG_CONFIG_PATH=$tree/usr/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$tree
  # shellcheck disable=SC2046 # flags
  exits 0 gcc "$work/p.c" $(PKG_CONFIG_PATH=$PKG_CONFIG_PATH pkg-config --cflags sluice) -L"$tree/usr/lib" -lsluice -lssl -lcrypto -lprotobuf-nanopb -lpthread -o "$work/p"
  exits 0 "$work/p"
  done_with 'a producer is compiled and linked with what is installed'
fi

command -v systemd-analyze >/dev/null || { done_with 'without systemd here: its unit is not looked at'; exit 0; }
exits 0 systemd-analyze security --offline=true --threshold=20 "$tree/usr/lib/systemd/system/sluiced.service"
done_with "systemd's exposure level of the unit: $(sed -n 's/.*level for sluiced.service: \([0-9.]*\).*/\1/p' "$work/out") (2.0 at most)"
