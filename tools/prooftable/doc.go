// Command prooftable turns the tests' own output into the tables of docs/.
//
//	go test -json ./... ──▶ PROOF lines of passed tests ──▶ docs/REQUIREMENTS.md
//	  (internal/proof)                                      docs/INTEROP.md
//	                                                        docs/CONFORMANCE.md
//
// Usage: prooftable [-check | -failed] [-docs docs] [-tables names] [-date day] [file ...]
//
// It reads files or standard input, in the form of go test -json or of
// go test -v. A proof counts if the test that says it has passed; a row that
// nobody proves is printed as open. A row or an id that no list knows is an
// error, since it is a test's misspelling.
//
// With -check nothing is written: the documents that stand are compared with
// the output, and the exit status is 1 if they claim what no test has shown
// or leave out what one has. Dates, test names and words are not compared.
//
// With -failed it prints what the failed tests of a -json output said.
//
//	main.go        flags, files, exit status
//	output.go      go test's output to proofs
//	failed.go      go test's output to what went wrong
//	rows.go        the requirement rows
//	checklist.go   the RFC checklist, from checklist.tsv
//	requirements.go interop.go conformance.go   one document each
//	table.go       Markdown tables, and their claims read back
//
// Limits: whether a test really proves what it says is for its reader.
package main
