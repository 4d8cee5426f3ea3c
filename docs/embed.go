// Package docs holds the manual, so that the program can print it.
package docs

import _ "embed"

// Manual is the manual page, in the Markdown that go-md2man reads.
//
//go:embed secret-init.1.md
var Manual string
