package main

// The table is filled in init, not in its declaration, because a command may
// itself refer to the table (help), which would be an initialisation cycle.
func init() {
	commands = []command{
		{"keys", "make, import, export, show and check keys", runKeys},
	}
}
