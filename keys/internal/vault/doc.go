// Package vault seals keys at rest: the root key, the ciphers derived from it, and
// what an entry looks like under a seal.
package vault
