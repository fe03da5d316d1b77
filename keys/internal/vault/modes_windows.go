package vault

// checkModes: permission bits mean nothing here; the directory's list does.
const checkModes = false
