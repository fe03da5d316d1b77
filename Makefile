GO ?= go

.PHONY: build test vet
build:
	$(GO) build -o bin/ ./cmd/...

test:
	$(GO) test ./...

vet:
	$(GO) vet ./...

.PHONY: interop-setup interop proof
interop-setup:
	interop/setup.sh

interop: interop-setup
	$(GO) test -count=1 -tags interop ./interop/...

# The tables of docs/ from the output of every test; CI runs the same with
# "prooftable -check".
proof: interop-setup
	$(GO) test -count=1 -json -tags interop ./... >.interop/tests.json || { $(GO) run ./tools/prooftable -failed .interop/tests.json; exit 1; }
	$(GO) run ./tools/prooftable .interop/tests.json
