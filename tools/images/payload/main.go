// Command payload is what tests run in containers: it does what its arguments
// say, one after the other.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	for _, arg := range os.Args[1:] {
		step, value, _ := strings.Cut(arg, "=")
		if err := do(step, value); err != nil {
			fmt.Fprintln(os.Stderr, "payload: error:", err)
			os.Exit(1)
		}
	}
}

func do(step, value string) error {
	switch step {
	case "out":
		fmt.Fprintln(os.Stdout, value)
	case "err":
		fmt.Fprintln(os.Stderr, value)
	case "write": // write=PATH=TEXT, with the folders on the way
		path, text, _ := strings.Cut(value, "=")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, []byte(text), 0o600)
	case "copyenv": // copyenv=PATH=NAME
		path, name, _ := strings.Cut(value, "=")
		return os.WriteFile(path, []byte(os.Getenv(name)), 0o600)
	case "get":
		client := http.Client{Timeout: 10 * time.Second}
		response, err := client.Get(value)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		_, err = io.Copy(os.Stdout, response.Body)
		return err
	case "link": // link=PATH=TARGET
		path, target, _ := strings.Cut(value, "=")
		return os.Symlink(target, path)
	case "witness":
		return tell()
	case "wait": // for TERM
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		fmt.Println("waiting")
		<-signals
		fmt.Println("terminated")
	case "exit":
		code, err := strconv.Atoi(value)
		if err != nil {
			return err
		}
		os.Exit(code)
	default:
		return fmt.Errorf("unknown step %q", step)
	}
	return nil
}
