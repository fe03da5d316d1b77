package main

// The table is filled in init, not in its declaration, because a command may
// itself refer to the table (help), which would be an initialisation cycle.
func init() {
	commands = []command{
		{"decode", "explain captured messages and decrypt them", decode},
		{"diagnose", "find the field that is wrong in a key", diagnose},
	}
}
