// Command scratch is the application of two examples: it shows what
// secret-init left it, as app.sh does where there is a shell.
package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
)

func main() {
	if err := show(); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func show() error {
	fmt.Printf("pid %d runs as uid %d; its variables about the database:\n", os.Getpid(), os.Getuid())
	variables := os.Environ()
	slices.Sort(variables)
	for _, variable := range variables {
		if strings.HasPrefix(variable, "DB_") {
			fmt.Println("    " + variable)
		}
	}
	path := os.Getenv("DB_PASSWORD_FILE")
	password, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var file syscall.Stat_t
	if err := syscall.Stat(path, &file); err != nil {
		return err
	}
	fmt.Printf("the file:\n    %s  mode %o  owner %d:%d  on %s\n", path, file.Mode&0o7777, file.Uid, file.Gid, filesystem(path))
	in := 0
	for _, variable := range variables {
		if strings.Contains(variable, string(password)) {
			in++
		}
	}
	fmt.Printf("the password has %d bytes; it is in %d of the process's variables\n", len(password), in)
	return nil
}

func filesystem(path string) string {
	const tmpfs = 0x01021994 // statfs(2)
	var where syscall.Statfs_t
	if err := syscall.Statfs(path, &where); err != nil {
		return err.Error()
	}
	if where.Type == tmpfs {
		return "tmpfs"
	}
	return fmt.Sprintf("%#x", where.Type)
}
