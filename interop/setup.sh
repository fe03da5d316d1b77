#!/usr/bin/env bash
# Installs the peers that the interop tests talk to into .interop/ at the root
# of the repository.
#
#   interop/setup.sh [-h] [component ...]        without names: all of them but
#                                                the browser
#
# Each component stands alone. One that cannot be installed leaves its reason
# in .interop/<component>.missing, the tests that need it are skipped with that
# reason, and the exit status stays 0; with INTEROP_STRICT=1 it is 1. A stamp
# over the component's recipe and sources makes a second run do nothing.
#
# Packages come through the ordinary clients (pip, mvn, cargo, apt-get), which
# keep their own settings and caches. Programs that are missing are installed
# by apt-get where this runs as root on a Debian system, and named otherwise.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
src=$root/interop
out=$root/.interop
all="debian aiocoap californium californium-proxy liboscore lakers leshan leshan18 leshan-demo"
optional="chromium"

aiocoap_version=0.4.17
californium_version=4.0.0-M3
libclang_version=18.1.1

# ---------------------------------------------------------------- components
# For each: about_X says what it is, inputs_X prints what its stamp depends on,
# present_X whether its result still stands, install_X makes it. install_X runs
# in a process of its own (errexit means nothing within the condition of an if)
# and its output goes to .interop/log/X.

about_debian() { echo "libcoap's programs and tshark"; }
inputs_debian() { echo libcoap3-bin tshark; }
present_debian() { command -v coap-server-notls && command -v coap-client-notls && command -v tshark; } >/dev/null
install_debian() {
	want coap-server-notls libcoap3-bin
	want tshark tshark
	{ version_of libcoap3-bin; version_of tshark; } >"$dir/VERSION"
}

about_aiocoap() { echo "aiocoap $aiocoap_version with its plug test"; }
inputs_aiocoap() { cat "$src/aiocoap/plugtest-contexts.py"; }
present_aiocoap() { test -x "$out/aiocoap/venv/bin/python" -a -f "$out/aiocoap/plugtest/plugtest-client"; }
install_aiocoap() {
	want python3 python3 python3-venv
	python3 -m venv --help >/dev/null || apt_install python3-venv
	python3 -m venv "$dir/venv"
	"$dir/venv/bin/pip" install -q "aiocoap[oscore,prettyprint,ws]==$aiocoap_version"
	# Only the source package has the plug test, and it lacks the contexts.
	"$dir/venv/bin/pip" download -q --no-deps --no-binary :all: -d "$dir/sdist" "aiocoap==$aiocoap_version"
	tar -xzf "$dir/sdist/aiocoap-$aiocoap_version.tar.gz" -C "$dir/sdist"
	mv "$dir/sdist/aiocoap-$aiocoap_version/contrib/oscore-plugtest" "$dir/plugtest"
	rm -r "$dir/sdist"
	"$dir/venv/bin/python" "$src/aiocoap/plugtest-contexts.py" "$dir/plugtest/common-context"
	# Without one of these five the client would send plain text silently.
	"$dir/venv/bin/python" -c 'import cbor2, cryptography, filelock, ge25519, lakers'
	echo "aiocoap $aiocoap_version" >"$dir/VERSION"
}

about_californium() { echo "Californium $californium_version with cf-oscore"; }
inputs_californium() { find "$src/californium" -type f -not -path '*/target/*' | sort | xargs cat; }
present_californium() { test -f "$out/californium/classes/peer/CfPeer.class" -a -d "$out/californium/lib" && command -v java; } >/dev/null
install_californium() {
	want javac default-jdk-headless
	want mvn maven
	mvn -B -q -f "$src/californium/pom.xml" -Dout.directory="$dir" -Dcf.version="$californium_version" \
		package dependency:copy-dependencies -DoutputDirectory="$dir/lib"
	echo "Californium $californium_version" >"$dir/VERSION"
}

about_liboscore() { echo "libOSCORE, the C code, through its crate"; }
inputs_liboscore() { cargo_inputs "$src/liboscore"; }
present_liboscore() { test -x "$out/liboscore/bin/liboscore-peer"; }
install_liboscore() {
	want cargo
	want gcc gcc libc6-dev
	libclang
	BINDGEN_EXTRA_CLANG_ARGS="-I$(gcc -print-file-name=include)" \
		cargo_build "$src/liboscore"
	"$dir/bin/liboscore-peer" vectors >"$dir/vectors.txt"
	if grep FAIL "$dir/vectors.txt"; then give_up "libOSCORE fails RFC 8613 Appendix C here"; fi
	echo "libOSCORE $(locked "$src/liboscore" liboscore)" >"$dir/VERSION"
}

about_lakers() { echo "lakers, EDHOC in Rust"; }
inputs_lakers() { cargo_inputs "$src/lakers/edhocrs"; }
present_lakers() { test -x "$out/lakers/bin/edhocrs"; }
install_lakers() {
	want cargo
	want gcc gcc libc6-dev
	cargo_build "$src/lakers/edhocrs"
	echo "lakers $(locked "$src/lakers/edhocrs" lakers)" >"$dir/VERSION"
}

about_leshan() { echo "Leshan 2.0.0-M15: LwM2M server and client, with OSCORE"; }
inputs_leshan() { maven_inputs leshan leshan-shared; }
present_leshan() { maven_present leshan peer/Leshan15; }
install_leshan() { maven_build leshan; echo "Leshan 2.0.0-M15" >"$dir/VERSION"; }

about_leshan18() { echo "Leshan 2.0.0-M18: LwM2M server, without OSCORE"; }
inputs_leshan18() { maven_inputs leshan18 leshan-shared; }
present_leshan18() { maven_present leshan18 peer/Leshan18; }
install_leshan18() { maven_build leshan18; echo "Leshan 2.0.0-M18" >"$dir/VERSION"; }

about_leshan-demo() { echo "Leshan's demo server 2.0.0-M4, as published"; }
inputs_leshan-demo() { maven_inputs leshan-demo; }
present_leshan-demo() { test -f "$out/leshan-demo/lib/leshan-server-demo-2.0.0-M4.jar" && command -v java; } >/dev/null
install_leshan-demo() { maven_build leshan-demo; echo "Leshan demo server 2.0.0-M4" >"$dir/VERSION"; }

about_chromium() { echo "a browser, for the demo server's page"; }
inputs_chromium() { echo chromium; }
present_chromium() { command -v chromium; } >/dev/null
install_chromium() {
	want chromium chromium
	version_of chromium >"$dir/VERSION"
}

about_californium-proxy() { echo "Californium's forward proxy 3.9.1, without OSCORE"; }
inputs_californium-proxy() { maven_inputs californium-proxy; }
present_californium-proxy() { maven_present californium-proxy peer/CfProxy; }
install_californium-proxy() { maven_build californium-proxy; echo "Californium proxy2 3.9.1" >"$dir/VERSION"; }

# ------------------------------------------------------------------- helpers

# maven_inputs FOLDER ..., maven_present FOLDER CLASS, maven_build FOLDER: a Java
# program of this repository, its classes and the libraries it names.
maven_inputs() {
	local folder
	for folder in "$@"; do find "$src/$folder" -type f -not -path '*/target/*' | sort | xargs cat; done
	declare -f maven_build
}
maven_present() { test -f "$out/$1/classes/$2.class" -a -d "$out/$1/lib" && command -v java; } >/dev/null
maven_build() {
	want javac default-jdk-headless
	want mvn maven
	mvn -B -q -f "$src/$1/pom.xml" -Dout.directory="$dir" package dependency:copy-dependencies -DoutputDirectory="$dir/lib"
}

# give_up REASON: the one line that a skipped test will show.
give_up() {
	echo "$*" >"$out/$component.reason"
	echo "$*"
	exit 1
}

# want PROGRAM [PACKAGE ...]: have the program, by apt-get if need be.
want() {
	local program=$1
	shift
	command -v "$program" >/dev/null && return
	test $# -gt 0 || give_up "$program is not installed"
	apt_install "$@" || give_up "$program is not installed (Debian: apt-get install $*)"
	command -v "$program" >/dev/null || give_up "$program is not installed, nor does the package $* bring it"
}

# apt_install PACKAGE ...: one at a time, as the package database has one lock.
apt_install() {
	test "$(id -u)" = 0 && command -v apt-get >/dev/null || return
	(
		flock 9
		export DEBIAN_FRONTEND=noninteractive
		apt-get install -qq -y --no-install-recommends "$@" ||
			{ apt-get update -qq && apt-get install -qq -y --no-install-recommends "$@"; }
	) 9>"$out/apt.lock"
}

version_of() { dpkg-query -W -f '${Package} ${Version}\n' "$1" 2>/dev/null || echo "$1 (version unknown)"; }

# libclang: bindgen wants it. LIBCLANG_PATH, the system's, or PyPI's.
libclang() {
	test -n "${LIBCLANG_PATH:-}" && return
	local lib
	for lib in /usr/lib/llvm-*/lib/libclang.so /usr/lib/llvm-*/lib/libclang-[0-9]*.so* /usr/lib/*/libclang-[0-9]*.so*; do
		test -e "$lib" && LIBCLANG_PATH=$(dirname "$lib") && export LIBCLANG_PATH && return
	done
	want python3 python3 python3-venv
	python3 -m venv "$dir/venv"
	"$dir/venv/bin/pip" install -q "libclang==$libclang_version"
	LIBCLANG_PATH=$(dirname "$(find "$dir/venv" -name libclang.so)")
	export LIBCLANG_PATH
}

cargo_inputs() { cat "$1/Cargo.toml" "$1/Cargo.lock" "$1"/src/*; }

# cargo_build FOLDER: the program into $dir/bin; the build's gigabyte goes.
cargo_build() {
	cargo install --locked --path "$1" --root "$dir" --target-dir "$dir/target"
	rm -rf "$dir/target" "$dir/venv"
}

# locked FOLDER CRATE: the version in its Cargo.lock.
locked() { sed -n "/^name = \"$2\"\$/{n;s/version = \"\(.*\)\"/\1/p;q}" "$1/Cargo.lock"; }

stamp() {
	{ declare -f "install_$1" cargo_build libclang; "inputs_$1"
	  echo "$aiocoap_version $californium_version $libclang_version"; } | sha256sum | cut -d' ' -f1
}

# one COMPONENT: install it unless its stamp stands; print one line.
one() {
	component=$1
	dir=$out/$component
	local start=$SECONDS want_stamp reason
	want_stamp=$(stamp "$component")
	if "present_$component" && test "$(cat "$dir/stamp" 2>/dev/null)" = "$want_stamp"; then
		rm -f "$out/$component.missing"
		report "$component" "up to date" $start
		return 0
	fi
	rm -rf "$dir" "$out/$component.missing" "$out/$component.reason"
	mkdir -p "$dir"
	if "$src/setup.sh" --recipe "$component" >"$out/log/$component" 2>&1 </dev/null && "present_$component"; then
		echo "$want_stamp" >"$dir/stamp"
		report "$component" "installed" $start
		return 0
	fi
	reason=$(cat "$out/$component.reason" 2>/dev/null) ||
		reason=$(first_error "$out/log/$component")
	rm -rf "$dir" "$out/$component.reason"
	echo "${reason:-its installation failed without a word}" >"$out/$component.missing"
	report "$component" "MISSING" $start
	printf '             %s\n             the whole story: .interop/log/%s\n' "${reason:-no message}" "$component"
	return 1
}

# first_error LOG: the line where the trouble starts and the next one, as the
# clients write it (pip ERROR:, apt E:, cargo error[..]:, mvn [ERROR]).
first_error() {
	local lines
	lines=$(sed 's/\x1b\[[0-9;]*m//g; /^[[:space:]]*$/d' "$1")
	{ grep -m1 -A1 -E '(^|[^A-Za-z])(error|ERROR|E)(:|\]|\[)' <<<"$lines" || tail -n1 <<<"$lines"; } | tr '\n' ' '
}

report() {
	local size=-
	test -d "$out/$1" && size=$(du -sm "$out/$1" | cut -f1)
	printf '%-12s %-11s %4d s %5s MB  %s\n' "$1" "$2" $((SECONDS - $3)) "$size" "$("about_$1")"
}

# ---------------------------------------------------------------------- main
case ${1:-} in -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;; esac
if test "${1:-}" = --recipe; then
	component=$2 dir=$out/$2
	set -e
	"install_$component"
	exit
fi
for c in "$@"; do
	case " $all $optional " in *" $c "*) ;; *) echo "setup.sh: no component $c; there are: $all $optional" >&2; exit 2 ;; esac
done
mkdir -p "$out/log"
jobs=() failed=0
# The packages first (they may bring what the others need), the rest at once.
for c in ${@:-$all}; do
	if test "$c" = debian; then one "$c" || failed=1; else one "$c" & jobs+=($!); fi
done
for j in "${jobs[@]}"; do wait "$j" || failed=1; done
printf 'interop: %d s, %s MB in .interop\n' $SECONDS "$(du -sm "$out" | cut -f1)"
if test $failed = 1; then
	echo "interop: the tests that need a missing component will be skipped with its reason"
	test "${INTEROP_STRICT:-0}" = 0 || { echo "interop: INTEROP_STRICT is set, so that is a failure"; exit 1; }
fi
