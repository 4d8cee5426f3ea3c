// Command stay is secret-init's PID 1 alone: what "secret-init supervise"
// does, without the sources and their libraries, which take 14 ms and 7 MB to
// initialise. make build joins it to secret-init (tools/join).
package main

import (
	"os"

	// An https probe in a scratch image, which has no CA certificates.
	_ "golang.org/x/crypto/x509roots/fallback"

	"secret-init/shim/internal/stay"
)

// The first argument is the word that brought the kernel here.
func main() { os.Exit(stay.Main(os.Args[min(2, len(os.Args)):], os.Stderr)) }
