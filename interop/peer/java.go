package peer

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// quietLogs leaves the peers' warnings.
var quietLogs = []string{"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"}

// javaSpec is a Java program of an installed component. A machine that lives
// for seconds compiles little and collects simply.
func javaSpec(t testing.TB, name, component string, more []string, class string, args ...string) Spec {
	t.Helper()
	dir := Component(t, component)
	java, err := exec.LookPath("java")
	if err != nil {
		t.Skip("java is not installed")
	}
	words := append([]string{"-Xmx192m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"}, more...)
	words = append(words, "-cp", filepath.Join(dir, "classes")+":"+filepath.Join(dir, "lib", "*"), class)
	return Spec{Name: name, Path: java, Args: append(words, args...)}
}
