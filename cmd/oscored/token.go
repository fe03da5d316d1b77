package main

import "path/filepath"

// tokenName is the file with the administration's token.
func tokenName(c *config) string {
	if c.Admin.TokenFile != "" {
		return c.Admin.TokenFile
	}
	return filepath.Join(c.Store.Dir, "admin.token")
}
