# make demo    builds, then shows a sealed device, hostile and keyless proxies, oscored, a plain server (60 s at most)
# make test    the whole suite a contributor needs; needs only Go
# make ci      what continuous integration runs; installs what it needs
#
# The rest, by name: build deb fmt lint race fuzz bench soak interop-setup interop proof snippets

GO ?= go
FUZZTIME ?= 3s
SOAK ?= 200
SOAK_LOAD ?= 20s
PINNED = $(GO) tool -modfile=tools/pinned/go.mod

.PHONY: demo test build deb fmt lint race fuzz bench soak interop-setup interop proof proof-check snippets ci

demo: build
	bin/oscore lab

build:
	$(GO) build -o bin/ ./cmd/...

# The Debian package, into bin/: oscored, oscore, oscore-proxy, the systemd unit.
deb:
	packaging/deb.sh $(VERSION)

test:
	$(GO) test ./...

race:
	$(GO) test -race ./...

fmt:
	$(PINNED) gofumpt -w $$(git ls-files '*.go')

lint:
	@out=$$($(PINNED) gofumpt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "not formatted, run 'make fmt':"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags interop ./interop/...
	$(PINNED) staticcheck ./...

# Every fuzz target for FUZZTIME each.
fuzz:
	tools/fuzz.sh $(FUZZTIME)

# The table of docs/PERFORMANCE.md, with ratios from one run.
bench:
	$(GO) run ./tools/benchtable

# kill -9 of either side SOAK times in the middle of traffic, checked from the capture:
# the library's programs, then oscored with failing disks (Linux);
# floods, and twice the load that can be carried for SOAK_LOAD (10m to be sure).
soak:
	$(GO) test -count=1 -timeout 60m -tags soak ./internal/lab -run Soak -v -soak.kills $(SOAK)
	$(GO) test -count=1 -timeout 60m -tags soak ./internal/soak -run Soak -v -soak.kills $(SOAK)
	$(GO) test -count=1 -timeout 240m -tags soak ./internal/load -run Soak -v -soak.load $(SOAK_LOAD)

# Other people's implementations, into .interop/: see interop/README.md.
interop-setup:
	interop/setup.sh

interop: interop-setup
	$(GO) test -count=1 -parallel 4 -tags interop ./interop/...

# The tables of docs/ from the output of every test.
proof: interop-setup
	$(GO) test -count=1 -parallel 4 -json -tags interop ./... >.interop/tests.json || { $(GO) run ./tools/prooftable -failed .interop/tests.json; exit 1; }
	$(GO) run ./tools/prooftable .interop/tests.json

# Every command and program that the README and docs/tasks show.
snippets: build
	$(GO) run ./tools/snippets README.md docs/tasks/*.md

# All tests with the race detector, peers included, and a check that docs/ claims
# what they prove and no more.
proof-check: interop-setup
	$(GO) test -race -count=1 -parallel 4 -json -tags interop ./... >.interop/tests.json || { $(GO) run ./tools/prooftable -failed .interop/tests.json; exit 1; }
	$(GO) run ./tools/prooftable -check .interop/tests.json

ci:
	$(MAKE) lint
	INTEROP_STRICT=1 $(MAKE) proof-check
	$(MAKE) test
	$(MAKE) demo
	$(MAKE) snippets
	$(MAKE) fuzz
