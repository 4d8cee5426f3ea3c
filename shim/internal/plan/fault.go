package plan

import (
	"slices"
	"strings"

	"secret-init/sources"
)

// Fault is one thing that is wrong, and where.
type Fault struct {
	// Where is a variable, an option or a position in the config file.
	Where string
	Err   error
}

// Faults are all that is wrong: they are reported together.
type Faults []Fault

func (f *Faults) add(where string, err error) {
	if err != nil {
		*f = append(*f, Fault{where, err})
	}
}

// err is nil when there is no fault.
func (f Faults) err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

// Error has one line for each fault.
func (f Faults) Error() string {
	var lines []string
	for _, fault := range f.Merged() {
		lines = append(lines, fault.Error())
	}
	return strings.Join(lines, "\n")
}

func (f Fault) Error() string {
	if f.Where == "" {
		return f.Err.Error()
	}
	return f.Where + ": " + f.Err.Error()
}

// Merged joins the places of faults that read the same: ten secrets of one
// document that is missing are one line.
func (f Faults) Merged() Faults {
	var merged Faults
	index := map[string]int{}
	for _, fault := range f {
		text := fault.Err.Error() + "\n" + sources.HintOf(fault.Err)
		if i, ok := index[text]; ok {
			places := strings.Split(merged[i].Where, ", ")
			for where := range strings.SplitSeq(fault.Where, ", ") {
				if where != "" && !slices.Contains(places, where) {
					merged[i].Where = strings.TrimPrefix(merged[i].Where+", "+where, ", ")
				}
			}
			continue
		}
		index[text] = len(merged)
		merged = append(merged, fault)
	}
	return merged
}
