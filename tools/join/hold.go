package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"strings"
)

// The Go runtime unblocks on every thread, whatever mask was inherited, the
// signals that its table says it ends the program for (blockableSig in its
// signal_unix.go), and it does end the program until os/signal is asked for
// them. So a TERM would come through in the first millisecond of a program that
// has it blocked, and PID 1 would lose it or end with 2. hold takes the two
// flags out of the table; from there on such a signal is like USR1. The runtime
// has no setting for that, and the linker lets no other package at the table.
//
// An entry is {flags int32; name string}, in the order of the signals. The
// table is found by its names, so that another layout is an error here.
const (
	entrySize = 24
	sigKill   = 1 << 1
	sigThrow  = 1 << 2
)

var heldNames = map[int]string{1: "SIGHUP: ", 2: "SIGINT: ", 3: "SIGQUIT: ", 6: "SIGABRT: ", 15: "SIGTERM: "}

var errTable = errors.New("the Go runtime's table of signals is not as it is known: see tools/join/hold.go")

func (p *program) hold() error {
	const first = "SIGHUP: terminal line hangup"
	table := -1
	for from := 0; ; {
		at := bytes.Index(p.text[from:], []byte(first))
		if at < 0 {
			break
		}
		from += at + 1
		address, ok := p.address(from - 1)
		if !ok {
			continue
		}
		name := binary.LittleEndian.AppendUint64(nil, address)
		name = binary.LittleEndian.AppendUint64(name, uint64(len(first)))
		// The flags and what aligns the name come before, and entry 0.
		if found := bytes.Index(p.text, name) - 8 - entrySize; found > 0 {
			if table >= 0 {
				return errTable
			}
			table = found
		}
	}
	if table < 0 {
		return errTable
	}
	for n, name := range heldNames {
		entry := p.text[table+n*entrySize:][:entrySize]
		flags := binary.LittleEndian.Uint32(entry)
		if !strings.HasPrefix(p.stringAt(entry[8:]), name) || flags&(sigKill|sigThrow) == 0 || flags >= 1<<8 {
			return errTable
		}
		binary.LittleEndian.PutUint32(entry, flags&^(sigKill|sigThrow))
	}
	return nil
}

// address is where a place in the file is mapped.
func (p *program) address(at int) (uint64, bool) {
	for _, s := range p.loaded() {
		if uint64(at) >= s.Off && uint64(at) < s.Off+s.Filesz {
			return s.Vaddr + uint64(at) - s.Off, true
		}
	}
	return 0, false
}

// stringAt reads a Go string, by its address and length.
func (p *program) stringAt(header []byte) string {
	address, size := binary.LittleEndian.Uint64(header), binary.LittleEndian.Uint64(header[8:])
	for _, s := range p.loaded() {
		if elf.ProgFlag(s.Flags)&elf.PF_R != 0 && address >= s.Vaddr && address+size <= s.Vaddr+s.Filesz && size < 1<<10 {
			at := address - s.Vaddr + s.Off
			return string(p.text[at : at+size])
		}
	}
	return ""
}
