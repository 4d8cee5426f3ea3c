// Command join puts a second static program into the file of a first one, so
// that one file can be either:
//
//	join FIRST SECOND
//
// The second one's segments become further segments of the first; they lie at
// addresses of their own, given to its linker with -T. The address of its entry
// point is written into the first one's data, after the words
// "secret-init:stay" (second in shim/internal/signals), whose own entry point
// decides which of the two it is to be. The kernel maps both and reads neither
// from the disk before it is used (elf(5)).
//
// In both, signals that were blocked when the program was started stay so until
// it asks for them: hold.go.
package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// marker is what the address comes after.
const marker = "secret-init:stay"

// pageSize is the largest of the architectures' pages: a segment's address
// and its place in the file are the same, modulo that.
const pageSize = 64 << 10

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: join FIRST SECOND")
		os.Exit(64)
	}
	if err := join(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "join:", err)
		os.Exit(1)
	}
}

func join(firstPath, secondPath string) error {
	info, err := os.Stat(firstPath)
	if err != nil {
		return err
	}
	first, err := read(firstPath)
	if err != nil {
		return err
	}
	second, err := read(secondPath)
	if err != nil {
		return err
	}
	for _, p := range []*program{first, second} {
		if err := p.hold(); err != nil {
			return err
		}
	}
	joined, err := first.with(second)
	if err != nil {
		return err
	}
	// A program that is running cannot be written to, but replaced.
	if err := os.WriteFile(firstPath+".joined", joined, info.Mode()); err != nil {
		return err
	}
	return os.Rename(firstPath+".joined", firstPath)
}

// program is a static program as the linker has left it.
type program struct {
	text     []byte
	header   elf.Header64
	segments []elf.Prog64
}

func read(path string) (*program, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := &program{text: text}
	if err := binary.Read(bytes.NewReader(text), binary.LittleEndian, &p.header); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	h := p.header
	if string(h.Ident[:4]) != elf.ELFMAG || elf.Class(h.Ident[elf.EI_CLASS]) != elf.ELFCLASS64 ||
		elf.Data(h.Ident[elf.EI_DATA]) != elf.ELFDATA2LSB || elf.Type(h.Type) != elf.ET_EXEC {
		return nil, fmt.Errorf("%s is not a static program for a 64-bit little-endian machine", path)
	}
	p.segments = make([]elf.Prog64, h.Phnum)
	table := bytes.NewReader(text[min(h.Phoff, uint64(len(text))):])
	if err := binary.Read(table, binary.LittleEndian, p.segments); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// loaded are the segments that are mapped into memory.
func (p *program) loaded() (list []elf.Prog64) {
	for _, s := range p.segments {
		if elf.ProgType(s.Type) == elf.PT_LOAD {
			list = append(list, s)
		}
	}
	return list
}

func (p *program) with(second *program) ([]byte, error) {
	if p.header.Machine != second.header.Machine {
		return nil, errors.New("the two are for different machines")
	}
	start := (uint64(len(p.text)) + pageSize - 1) / pageSize * pageSize
	segments := p.segments
	for _, s := range second.loaded() {
		for _, other := range p.loaded() {
			if s.Vaddr < other.Vaddr+other.Memsz {
				return nil, errors.New("the second program is not above the first: link it with -T")
			}
		}
		s.Off += start
		segments = append(segments, s)
	}
	joined := make([]byte, start, start+uint64(len(second.text)))
	copy(joined, p.text)
	joined = append(joined, second.text...)

	// Go's linker leaves room after its tables; that of the sections, which
	// comes next and has no fixed place, makes way.
	size, sections := binary.Size(elf.Prog64{}), int(p.header.Shnum)*binary.Size(elf.Section64{})
	end, whole := int(p.header.Phoff)+len(p.segments)*size, len(segments)*size
	if int(p.header.Shoff) == end {
		p.header.Shoff = uint64(len(joined))
		joined = append(joined, joined[end:end+sections]...)
		clear(joined[end : end+sections])
	}
	if len(bytes.Trim(joined[end:int(p.header.Phoff)+whole], "\x00")) > 0 {
		return nil, errors.New("the first program has no room for more segments")
	}
	for i := range segments {
		if elf.ProgType(segments[i].Type) == elf.PT_PHDR {
			segments[i].Filesz, segments[i].Memsz = uint64(whole), uint64(whole)
		}
	}
	p.header.Phnum = uint16(len(segments))
	if _, err := binary.Encode(joined, binary.LittleEndian, p.header); err != nil {
		return nil, err
	}
	if _, err := binary.Encode(joined[p.header.Phoff:], binary.LittleEndian, segments); err != nil {
		return nil, err
	}
	at := bytes.Index(p.text, []byte(marker))
	if at < 0 || bytes.Count(p.text, []byte(marker)) != 1 {
		return nil, fmt.Errorf("the first program does not have %q exactly once", marker)
	}
	binary.LittleEndian.PutUint64(joined[at+len(marker):], second.header.Entry)
	return joined, nil
}
