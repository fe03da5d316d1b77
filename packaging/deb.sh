#!/bin/sh
# Builds the Debian package into bin/: deb.sh [VERSION]. It needs Go and dpkg-deb.
#
# The version is the argument, else that of the tag, else 0.0 with the commit.
set -eu
cd "$(dirname "$0")/.."
GO=${GO:-go}
arch=${ARCH:-$(dpkg --print-architecture)}
case $arch in
amd64) goarch=amd64 ;;
arm64) goarch=arm64 ;;
armhf) goarch=arm; export GOARM=7 ;;
*) echo "deb.sh: no architecture $arch: amd64, arm64, armhf" >&2; exit 1 ;;
esac
version=${1:-$(git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//; s/-/+/; s/-/./g' || true)}
[ -n "$version" ] || version="0.0~git$(git log -1 --format=%cd --date=format:%Y%m%d).$(git rev-parse --short HEAD)"
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
root=$work/root
CGO_ENABLED=0 GOOS=linux GOARCH=$goarch $GO build -trimpath -buildvcs=false -ldflags "-s -w -X main.buildVersion=$version" -o "$work/bin/" ./cmd/oscored ./cmd/oscore ./cmd/oscore-proxy
install -d -m 755 "$root/usr/bin"
install -m 755 "$work"/bin/* "$root/usr/bin/"
install -D -m 644 packaging/oscored.service "$root/usr/lib/systemd/system/oscored.service"
install -D -m 640 packaging/oscored.toml "$root/etc/oscored/oscored.toml"
doc=$root/usr/share/doc/oscored
install -D -m 644 -t "$doc" docs/OPERATIONS.md docs/SECURITY.md docs/tasks/keys.md docs/tasks/leshan.md README.md
install -m 644 packaging/deb/copyright "$doc/copyright"
install -D -m 644 packaging/deb/lintian-overrides "$root/usr/share/lintian/overrides/oscored"
printf 'oscored (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md of the source.\n\n -- oscorelay <oscorelay@users.noreply.github.com>  %s\n' \
	"$version" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$doc/changelog.gz"
chmod 644 "$doc/changelog.gz"
for c in oscored oscore oscore-proxy; do
	case $c in
	oscored) what="OSCORE in front of CoAP servers" ;;
	oscore) what="keys, sealed requests, decoding and diagnosis" ;;
	*) what="CoAP proxy that holds no key" ;;
	esac
	mkdir -p "$root/usr/share/man/man1"
	printf '.TH %s 1\n.SH NAME\n%s \\- %s\n.SH DESCRIPTION\nRun\n.B %s \\-h\nfor its use, and see /usr/share/doc/oscored/OPERATIONS.md.\n' \
		"$(echo "$c" | tr a-z A-Z)" "$c" "$what" "$c" | gzip -9n >"$root/usr/share/man/man1/$c.1.gz"
done
find "$root" -type d -exec chmod 755 {} +
chmod 750 "$root/etc/oscored"

mkdir "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<END
Package: oscored
Version: $version
Architecture: $arch
Maintainer: oscorelay <oscorelay@users.noreply.github.com>
Installed-Size: $(du -sk "$root" | cut -f1)
Depends: adduser
Recommends: systemd
Section: net
Priority: optional
Homepage: https://github.com/oscorelay/oscorelay
Description: OSCORE (RFC 8613) in front of CoAP and LwM2M servers
 oscored stands before a server that speaks plain CoAP, such as Leshan, and
 gives its devices end-to-end security up to that machine. The server is not
 changed. With it come oscore, the tool for keys and diagnosis, and
 oscore-proxy, which carries sealed messages and holds no key.
END
echo /etc/oscored/oscored.toml >"$root/DEBIAN/conffiles"
for s in postinst prerm postrm; do install -m 755 "packaging/deb/$s" "$root/DEBIAN/$s"; done
(cd "$root" && find usr etc -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
chmod 644 "$root/DEBIAN/control" "$root/DEBIAN/conffiles" "$root/DEBIAN/md5sums"
mkdir -p bin
dpkg-deb --root-owner-group -Zxz --build "$root" "bin/oscored_${version}_$arch.deb"
