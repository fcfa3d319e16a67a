#!/usr/bin/env bash
# test_cert.sh - certificates: what `sluice cert` makes is what openssl's own program takes, for TLS 1.3 too; what it
# refuses; that nothing is ever overwritten, and nothing half written stays, whenever it is killed.
. "$(dirname "$0")/lib.sh"
command -v openssl >/dev/null || skip "there is no openssl"

cd "$work"
cert() { sluice cert "$@"; }
verify() { openssl verify -x509_strict -CAfile "${ca:-pki/ca.crt}" "$@"; }
field() { openssl x509 -noout -in "$@"; }
mode_of() { stat -c %a "$1"; }
# What a directory holds, to the byte, with modes, inodes and times.
holds() { find "$1" -printf '%P %m %i %T@\n' | sort; find "$1" -type f -exec sha256sum {} + | sort; }

# refused CODE PATTERN ARGUMENT...: one sentence, and nothing on stdout.
refused() {
  local code=$1 pattern=$2
  shift 2
  exits "$code" cert "$@"
  grep -qE -- "$pattern" "$work/err" || not_so 1 "nothing like '$pattern': $(cat "$work/err")"
  [ ! -s "$work/out" ] || not_so 1 "writes to stdout although it refuses: $*"
  expect "$(grep -vc '^Try: ' "$work/err")" 1 "sentences of: cert $*"
}

# --- what is made ----------------------------------------------------------------------------------

exits 0 cert create-ca --dir pki --name trading
exits 0 cert create-node --dir pki --id 3 --host Node3.example.org,127.0.0.1 --host ::1 --json
expect "$(json out role)/$(json out node)/$(json out name)" 'node/3/node-3' 'the node'
expect "$(json out keyFile) $(json out certificateFile)" 'pki/node-3.key pki/node-3.crt' 'the files'
exits 0 cert create-node --dir pki --id 65535 --host other --name last
exits 0 cert create-client --dir pki --role producer --name feed-a --out clients --days 10
exits 0 cert create-client --dir pki --role admin --name alice
exits 0 cert create-client --dir pki --role reader --name R.2_x
for f in pki/ca pki/node-3 pki/node-65535 clients/producer-feed-a pki/admin-alice pki/reader-R.2_x; do
  expect "$(mode_of $f.key)/$(mode_of $f.crt)" 600/644 "modes of $f.key and .crt"
  expect "$(openssl pkey -in $f.key -pubout)" "$(field $f.crt -pubkey)" "public key of $f"
  openssl pkey -in $f.key -noout -check >"$work/out" 2>&1 || not_so 0 "openssl does not take $f.key"
  field $f.crt -serial >serial
  grep -qE '^serial=[0-9A-F]{32}$' serial || not_so 0 "no serial of 128 bits in $f.crt: $(cat serial)"
done
expect "$(find pki clients -name '.*')" '' 'files left behind'
expect "$(mode_of pki)/$(mode_of clients)" 700/700 'modes of the directories'
expect "$(for f in pki/*.crt; do field "$f" -serial; done | sort | uniq -d)" '' 'serials given twice'

# ext FILE NAME...: its extensions as openssl prints them, on one line.
ext() { local f=$1; shift; openssl x509 -noout -in "$f" -ext "$(IFS=,; echo "$*")" | tr -s ' \n' ' '; }
expect "$(ext pki/ca.crt basicConstraints keyUsage subjectAltName)" \
  'X509v3 Basic Constraints: critical CA:TRUE, pathlen:0 X509v3 Key Usage: critical Certificate Sign, CRL Sign X509v3 Subject Alternative Name: URI:urn:sluice:ca:trading ' \
  'extensions of the CA'
leaf='X509v3 Basic Constraints: critical CA:FALSE X509v3 Key Usage: critical Digital Signature X509v3 Extended Key Usage: '
expect "$(ext pki/node-3.crt basicConstraints keyUsage extendedKeyUsage subjectAltName)" \
  "${leaf}TLS Web Server Authentication, TLS Web Client Authentication X509v3 Subject Alternative Name: URI:urn:sluice:node:3:node-3, DNS:node3.example.org, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1 " \
  'extensions of a node'
expect "$(ext clients/producer-feed-a.crt basicConstraints keyUsage extendedKeyUsage subjectAltName)" \
  "${leaf}TLS Web Client Authentication X509v3 Subject Alternative Name: URI:urn:sluice:client:producer:feed-a " \
  'extensions of a producer'
key_id() { ext "$@" | grep -oE '([0-9A-F]{2}:){19}[0-9A-F]{2}'; }
expect "$(key_id pki/node-3.crt authorityKeyIdentifier)" "$(key_id pki/ca.crt subjectKeyIdentifier)" 'key ids of node and CA'

exits 0 verify -purpose sslserver -verify_hostname node3.example.org pki/node-3.crt
exits 0 verify -purpose sslserver -verify_ip ::1 pki/node-3.crt
exits 0 verify -purpose sslclient pki/node-3.crt pki/node-65535.crt clients/*.crt pki/admin-alice.crt pki/reader-*.crt
exits 2 verify -purpose sslserver -verify_hostname node4.example.org pki/node-3.crt
exits 2 verify -purpose sslserver clients/producer-feed-a.crt
exits 0 field pki/ca.crt -checkend $((3649 * 86400))
exits 0 field pki/node-3.crt -checkend $((364 * 86400))
exits 0 field clients/producer-feed-a.crt -checkend $((9 * 86400))
exits 1 field clients/producer-feed-a.crt -checkend $((10 * 86400 + 60))
begin=$(date -d "$(field pki/node-3.crt -startdate | cut -d= -f2)" +%s)
[ "$begin" -le $(($(date +%s) - 240)) ] || not_so 0 "valid from less than four minutes ago: $begin"
done_with "a CA, nodes and clients, as openssl sees them"

# --- show ------------------------------------------------------------------------------------------

exits 0 cert show pki/node-3.crt --json
expect "$(json out role)/$(json out node)/$(json out name)/$(json out ca)/$(json out validNow)" node/3/node-3/false/true 'show of the node'
expect "$(json out hosts)" '["node3.example.org", "127.0.0.1", "::1"]' 'hosts'
expect "$(json out uri)" urn:sluice:node:3:node-3 'uri'
expect "$(json out fingerprintSha256)" "$(field pki/node-3.crt -fingerprint -sha256 | cut -d= -f2 | tr -d : | tr A-F a-f)" fingerprint
expect "$(json out serial)" "$(field pki/node-3.crt -serial | cut -d= -f2 | tr A-F a-f)" serial
for end in 'validFrom startdate' 'validUntil enddate'; do
  expect "$(json out "${end% *}")" "$(date -u -d "$(field pki/node-3.crt "-${end#* }" | cut -d= -f2)" +%Y-%m-%dT%H:%M:%SZ)" "${end% *}"
done
expect "$(json out subject) $(json out issuer)" "$(field pki/node-3.crt -subject -issuer -nameopt RFC2253 | sed 's/^[a-z]*=//' | paste -sd' ')" names
grep -qxE '36[45]' <<<"$(json out daysLeft)" || not_so 0 "days left: $(json out daysLeft)"
exits 0 cert show pki/ca.crt --json
expect "$(json out role)/$(json out node)/$(json out name)/$(json out ca)" ca/null/trading/true 'show of the CA'
exits 0 cert show clients/producer-feed-a.crt
says '^role +producer$'
says '^name +feed-a$'
says '^valid until +20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z$'
refused 1 'node-3.key is no certificate in PEM' show pki/node-3.key
refused 1 'not a regular file' show /dev/null
refused 4 'does not exist' show pki/nowhere.crt
refused 1 'not a regular file' show pki
openssl req -x509 -newkey rsa:2048 -nodes -keyout other.key -out other.crt -subj /CN=other -days 9 2>/dev/null
refused 1 'has no role of Sluice' show other.crt
cat pki/*.crt >both.crt
refused 1 'more than one certificate' show both.crt
done_with "show says what openssl says; what is none of ours is refused"

# --- a handshake -----------------------------------------------------------------------------------

# serve CRT KEY CA: openssl's server, which wants a certificate and sends lines back in reverse.
serve() {
  openssl s_server -accept "127.0.0.1:$port" -tls1_3 -cert "$1" -key "$2" -CAfile "$3" -Verify 1 -verify_return_error \
    -rev >server.log 2>&1 &
  server=$!
  background+=("$server")
  until_true "openssl listens" bash -c "exec 3<>/dev/tcp/127.0.0.1/$port"
}
stop_server() { kill -9 $server; wait $server 2>/dev/null || true; background=(); }
# hello CA [OPTION...]: does a line come back? The server ends the connection at CLOSE.
hello() {
  printf 'abc\nCLOSE\n' | timeout "$wait_s" openssl s_client -connect "127.0.0.1:$port" -tls1_3 -quiet -ign_eof \
    -verify_return_error -CAfile "$@" >client.log 2>&1
  grep -qx cba client.log
}
as() { printf -- '-cert %s.crt -key %s.key' "$1" "$1"; }
serve pki/node-3.crt pki/node-3.key pki/ca.crt
for who in pki/node-65535 pki/node-3 clients/producer-feed-a pki/admin-alice pki/reader-R.2_x; do
  # shellcheck disable=SC2046
  hello pki/ca.crt -verify_ip 127.0.0.1 $(as $who) || not_so 0 "no TLS 1.3 as $who: $(tail -n 5 client.log server.log)"
done
hello pki/ca.crt && not_so 0 "a client without a certificate gets an answer"
exits 0 cert create-ca --dir others --name trading
exits 0 cert create-node --dir others --id 3 --host 127.0.0.1
# shellcheck disable=SC2046
hello pki/ca.crt $(as others/node-3) && not_so 0 "a node of another CA of the same name gets an answer"
# shellcheck disable=SC2046
hello others/ca.crt $(as pki/node-65535) && not_so 0 "a server of another CA is believed"
grep -qE 'verify error|certificate verify failed' client.log || not_so 0 "another reason: $(tail -n 3 client.log)"
stop_server
serve clients/producer-feed-a.crt clients/producer-feed-a.key pki/ca.crt
# shellcheck disable=SC2046
hello pki/ca.crt $(as pki/node-3) && not_so 0 "a producer passes for a server"
grep -qE 'unsuitable certificate purpose|unsupported certificate purpose' client.log || not_so 0 "another reason: $(tail -n 3 client.log)"
stop_server
done_with "TLS 1.3 between openssl's programs, both sides with certificates"

# --- what is there stays ---------------------------------------------------------------------------

holds pki >before
refused 4 'ca.crt exists already, and stays as it is$' create-ca --dir pki
refused 4 'node-3.crt exists already, and stays as it is$' create-node --dir pki --id 3 --host elsewhere
refused 4 'admin-alice.crt exists already' create-client --dir pki --role admin --name alice
holds pki >after
cmp before after || not_so 0 "something in the directory has changed"
# A certificate without its key, then a key without its certificate: that is how one is renewed.
mkdir -m 700 renew
cp -p pki/node-3.crt pki/node-3.key pki/ca.crt pki/ca.key renew
mv renew/node-3.key kept.key
refused 4 'node-3.crt exists already.*its key is not there' create-node --dir renew --id 3 --host a
mv kept.key renew/node-3.key
mv renew/node-3.crt old.crt
exits 0 cert create-node --dir renew --id 3 --host b.example
says 'node-3.key exists already: the certificate is made for it'
exits 0 verify renew/node-3.crt
expect "$(field renew/node-3.crt -pubkey)" "$(field old.crt -pubkey)" 'the key behind a renewed certificate'
[ "$(field renew/node-3.crt -serial)" != "$(field old.crt -serial)" ] || not_so 0 "two certificates have one serial"
mv renew/ca.crt old-ca.crt
exits 0 cert create-ca --dir renew --name trading
ca=renew/ca.crt verify renew/node-3.crt >/dev/null || not_so 0 "a renewed CA's certificate does not fit what its key has signed"
# Links are not followed to be written through.
ln -s "$work/elsewhere" renew/node-9.crt
refused 4 'node-9.crt exists already' create-node --dir renew --id 9 --host a
if [ -e elsewhere ] || [ -e renew/node-9.key ]; then not_so 0 "written through a link"; fi
# Of many at once, one makes it.
for i in 1 2 3 4 5 6 7 8; do
  (cert create-node --dir renew --id 8 --host a >/dev/null 2>"at-once.$i" && echo made >"made.$i") &
done
wait
expect "$(cat made.* | wc -l)" 1 'of eight at once that made a certificate'
expect "$(cat at-once.* | grep -c 'exists already, and stays')" 7 'of eight at once that were refused'
ca=renew/ca.crt verify renew/node-8.crt >/dev/null
expect "$(openssl pkey -in renew/node-8.key -pubout)" "$(field renew/node-8.crt -pubkey)" 'the key of eight at once'
for mask in 0000 0777; do
  (umask $mask; cert create-ca --dir mask$mask; cert create-node --dir mask$mask --id 1 --host a) >/dev/null
  expect "$(mode_of mask$mask) $(mode_of mask$mask/ca.key) $(mode_of mask$mask/ca.crt) $(mode_of mask$mask/node-1.key) $(mode_of mask$mask/node-1.crt)" \
    '700 600 644 600 644' "modes under umask $mask"
done
done_with "nothing is overwritten, whoever else is at it; the umask does not matter"

# --- what is refused -------------------------------------------------------------------------------

for days in 0 -1 x 3651 1e3 ''; do
  refused 2 '3650' create-node --dir pki --id 4 --host a --days "$days"
  refused 2 '3650' create-client --dir pki --role reader --name r --days "$days"
done
for days in 0 7301 99999999999999999999; do refused 2 '7300' create-ca --dir new --days $days; done
for id in 0 65536 -1 x 3x '' 4294967299; do refused 2 '1 to 65535' create-node --dir pki --id "$id" --host a; done
for host in '' ',' 'a,' ',a' 'a,,b' 'a b' a_b 10.0.0.300 '*.example.org' '[::1]' http://a a:1 fe80::1%eth0; do
  refused 2 'neither a DNS name nor an IP address' create-node --dir pki --id 4 --host "$host"
done
refused 2 "'A' is there twice" create-node --dir pki --id 4 --host a,b --host A
refused 2 'one host too many' create-node --dir pki --id 4 --host 'a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q'
for name in '' '../x' 'a b' a/b "$(printf 'x%.0s' {1..65})" $'a\n'; do
  refused 2 'a name has' create-client --dir pki --role reader --name "$name"
done
for role in '' node ca Admin writer; do refused 2 "there is no role '$role'" create-client --dir pki --role "$role" --name x; done
refused 2 'which node' create-node --dir pki --host a
refused 2 'which names or addresses' create-node --dir pki --id 4
refused 2 'role' create-client --dir pki --name x
refused 2 'name' create-client --dir pki --role reader
refused 2 'create-ca takes no --host' create-ca --dir new --host a
refused 2 'show takes no --dir' show --dir pki x
refused 2 'show takes one file' show
refused 2 "what is 'x' for" create-ca --dir new x
refused 2 "no 'cert frobnicate'" frobnicate
refused 2 'create-ca, create-node' --json
[ ! -e new ] || not_so 0 "what is refused has made a directory"

refused 4 'new does not exist' create-node --dir new --id 1 --host a
mkdir -m 700 empty
refused 4 'there is no CA in empty' create-node --dir empty --id 1 --host a
# with COMMAND...: a copy of the CA's directory in `bad`, after the command.
with() {
  rm -rf bad
  mkdir -m 700 bad
  cp -p pki/ca.crt pki/ca.key bad
  (cd bad && "$@")
}
node=(create-node --dir bad --id 1 --host a)
with rm ca.key
refused 4 'bad/ca.key: No such file' "${node[@]}"
with cp -p ../others/ca.key ca.key
refused 4 'bad/ca.key does not belong to bad/ca.crt' "${node[@]}"
for m in 640 604 620; do
  with chmod $m ca.key
  refused 4 'others can read bad/ca.key' "${node[@]}"
done
with chmod 666 ca.crt
refused 4 'others can write to bad/ca.crt' "${node[@]}"
for m in 770 702 1777; do
  with chmod $m .
  refused 4 'others can write to bad: chmod go-w bad' "${node[@]}"
  refused 4 'others can write to bad' create-node --dir pki --out bad --id 1 --host a
  rm bad/*
  refused 4 'others can write to bad' create-ca --dir bad
done
with cp -p ../pki/node-3.crt ca.crt
refused 4 "ca.crt is not a CA's certificate" "${node[@]}"
with cp ../other.crt ca.crt
refused 4 'ca.crt has no role of Sluice' "${node[@]}"
with dd if=/dev/zero of=ca.crt bs=1k count=65 status=none
refused 4 'longer than 64 KiB' "${node[@]}"
with truncate -s 100 ca.key
refused 4 'ca.key is no private key in PEM without a password' "${node[@]}"
with openssl pkey -in ../pki/ca.key -aes256 -passout pass:x -out ca.key
refused 4 'no private key in PEM without a password' "${node[@]}"
with eval 'rm ca.key && mkfifo -m 600 ca.key'
refused 4 'ca.key is not a regular file' "${node[@]}"
with eval 'cp ../other.key node-1.key && chmod 600 node-1.key'
expect "$(find bad -name 'node-1.crt')" '' 'certificates made for what was refused'
exits 4 cert "${node[@]}"
says 'node-1.key is not a key on P-256'
with eval 'cp ../pki/node-3.key node-1.key && chmod 644 node-1.key'
exits 4 cert "${node[@]}"
says 'others can read bad/node-1.key'
if [ "$(id -u)" = 0 ]; then
  with chown 65534 .
  refused 4 'bad belongs to another user' "${node[@]}"
  with chown 65534 ca.key
  refused 4 'bad/ca.key belongs to another user' "${node[@]}"
fi
# No room: nothing is left, under any name.
said=$( (trap '' XFSZ; ulimit -f 0; cert create-ca --dir full; echo "exit $?") 2>&1 | cat)
expect "$said" $'sluice: full/ca.key cannot be written: File too large\nexit 4' 'what is said of a full disk'
expect "$(ls -A full)" '' 'files on a full disk'
done_with "options, directories, keys and CAs that are not as they should be: one sentence each"

# --- dates -----------------------------------------------------------------------------------------

exits 0 cert create-ca --dir short --days 2
exits 0 cert create-node --dir short --id 1 --host a
says 'the certificate ends with its CA, at 20.*, and not after 365 days'
expect "$(field short/node-1.crt -enddate)" "$(field short/ca.crt -enddate)" 'end of a certificate and its CA'
[ "$(date -d "$(field short/node-1.crt -startdate | cut -d= -f2)" +%s)" -ge "$(date -d "$(field short/ca.crt -startdate | cut -d= -f2)" +%s)" ] ||
  not_so 0 "valid before its CA"
# redate DIR FROM UNTIL: signs the CA's certificate anew, with other dates, with openssl.
redate() {
  rm -rf "$1"
  mkdir -m 700 "$1" "$1.db"
  cp -p pki/ca.key "$1"
  : >"$1.db/index"
  cat >"$1.db/cnf" <<CNF
[ca]
default_ca = d
[d]
database = $1.db/index
new_certs_dir = $1.db
rand_serial = yes
default_md = sha256
policy = p
x509_extensions = e
[p]
commonName = supplied
[e]
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
subjectAltName = URI:urn:sluice:ca:dated
CNF
  openssl req -new -key "$1/ca.key" -subj /CN=dated -out "$1.db/csr" 2>/dev/null
  openssl ca -batch -config "$1.db/cnf" -selfsign -keyfile "$1/ca.key" -in "$1.db/csr" -out "$1/ca.crt" -notext \
    -startdate "$2" -enddate "$3" >/dev/null 2>&1
  chmod 644 "$1/ca.crt"
}
redate old 20200101000000Z 20200201000000Z
refused 4 'the CA is not valid any more, since 2020-02-01T00:00:00Z' create-node --dir old --id 1 --host a
exits 1 cert show old/ca.crt
says '^days left +-[0-9]+ \(EXPIRED\)$'
exits 1 cert show old/ca.crt --json
expect "$(json out validNow)/$(json out name)/$(json out validUntil)" false/dated/2020-02-01T00:00:00Z 'an expired CA'
redate young 20700101000000Z 20800101000000Z
refused 4 "the CA is not valid before 2070-01-01T00:00:00Z: is this machine's clock right" create-node --dir young --id 1 --host a
exits 1 cert show young/ca.crt
says 'NOT YET VALID'
redate good 20200101000000Z 20800101000000Z
exits 0 cert create-node --dir good --id 1 --host a
ca=good/ca.crt verify good/node-1.crt >/dev/null || not_so 0 "a CA's certificate that openssl has signed does not do"
done_with "no certificate outlives its CA; an expired CA signs nothing"

# --- killed ----------------------------------------------------------------------------------------

# whole DIR BASE: what is under the final names is all of a key and all of a certificate, of their mode, and no
# certificate without its key. Says which are there.
whole() {
  local f=$1/$2 there=
  if [ -e "$f.key" ]; then
    openssl pkey -in "$f.key" -noout -check >/dev/null 2>&1 || not_so 1 "half a key: $f.key"
    expect "$(mode_of "$f.key")" 600 "mode of $f.key"
    there=key
  fi
  if [ -e "$f.crt" ]; then
    expect "$(openssl pkey -in "$f.key" -pubout)" "$(field "$f.crt" -pubkey)" "$f.crt and its key"
    expect "$(mode_of "$f.crt")" 644 "mode of $f.crt"
    there+=+crt
  fi
  echo "${there:-nothing}"
}

# after_kill DIR BASE ARGUMENT...: everything is whole; the next run completes it, and leaves nothing besides.
after_kill() {
  local dir=$1 base=$2 state
  shift 2
  state=$(whole "$dir" "$base")
  echo "$state" >>states
  if [ "$state" = key+crt ]; then
    exits 4 cert "$@"
  else
    exits 0 cert "$@"
    expect "$(whole "$dir" "$base")" key+crt "after the next run"
  fi
  exits 0 openssl verify -CAfile "${ca:-$dir/ca.crt}" "$dir/$base.crt"
  expect "$(find "$dir" -name '.*' ! -path "$dir")" '' "files left behind"
}

: >states
for i in $(seq 1 "$([ "$mode" = full ] && echo 100 || echo 20)"); do
  # In braces, as the shell says itself what was killed.
  { timeout -s KILL "$(printf '0.%03d' $((RANDOM % 100)))" "$bin/sluice" cert create-ca --dir "random$i"; } >/dev/null 2>&1 || true
  after_kill "random$i" ca create-ca --dir "random$i"
done
done_with "killed at random moments: $(sort states | uniq -c | tr -s ' \n' ' ')"

# Before and after every system call from the lock on: some 85 of them, half of them the sanitizer's. In quick mode
# at every fourth of these moments.
at() { ASAN_OPTIONS=detect_leaks=0 "$python" "$root/tests/e2e/kill_at.py" "$@"; }
rc=0
at 0 "$bin/sluice" cert create-node --dir pki --id 1 --host a --out stops >out || rc=$?
if [ $rc = 77 ]; then
  done_with "(it cannot be killed at every system call: ptrace is not allowed)"
  exit 0
fi
expect $rc 0 'exit code under ptrace'
stops=$(tail -n 1 out)
: >states
ca=pki/ca.crt
step=$([ "$mode" = full ] && echo 1 || echo 4)
for ((i = (stops > 190 ? stops - 190 : 1) + RANDOM % step; i <= stops; i += step)); do
  rm -rf killed
  at "$i" "$bin/sluice" cert create-node --dir pki --id 1 --host a --out killed >out || true
  [ -e killed ] || { echo nothing >>states; continue; }
  after_kill killed node-1 create-node --dir pki --id 1 --host a --out killed
done
for state in nothing key key+crt; do
  grep -qx -- "$state" states || not_so 0 "no kill has left $state: $(sort states | uniq -c)"
done
done_with "killed at every system call: $(sort states | uniq -c | tr -s ' \n' ' ')"
