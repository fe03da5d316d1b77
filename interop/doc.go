// Package interop holds the tests against other people's implementations.
//
// They carry the build tag interop and run by make interop, which installs
// the peers first (setup.sh); the harness is interop/peer. Each test looks at
// the wire as well as at the result: option 9 everywhere, nothing readable,
// no nonce twice.
package interop
