GO ?= go

.PHONY: build test vet
build:
	$(GO) build -o bin/ ./cmd/...

test:
	$(GO) test ./...

vet:
	$(GO) vet ./...

.PHONY: interop-setup interop
interop-setup:
	interop/setup.sh

interop: interop-setup
	$(GO) test -count=1 -tags interop ./interop/...
