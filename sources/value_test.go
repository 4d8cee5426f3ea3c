package sources

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestParseJSONKeepsOrderAndSpelling(t *testing.T) {
	in := `{"z": 1.10, "a": "x\ny", "n": 12345678901234567890, "e": 1E+3, "t": true, "f": false, "nil": null, "l": [1, {"b": "<&>"}], "o": {}, "ü": "🔑"}`
	v, err := ParseJSON([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"z":1.10,"a":"x\ny","n":12345678901234567890,"e":1E+3,"t":true,"f":false,"nil":null,"l":[1,{"b":"<&>"}],"o":{},"ü":"🔑"}`
	if got := string(v.appendJSON(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestParseJSONScalars(t *testing.T) {
	for in, kind := range map[string]Kind{`"x"`: String, `1e3`: Number, ` true `: Bool, `null`: Null, `[]`: Array, `{}`: Object} {
		if v, err := ParseJSON([]byte(in)); err != nil || v.Kind != kind {
			t.Errorf("%s: %v, %v", in, v, err)
		}
	}
}

func TestParseErrorsShowNothing(t *testing.T) {
	for _, in := range []string{"", "x", canary, `{"a": "` + canary, `{"a": ` + canary + `}`, `{} {}`, `{"a": 1,}`, `[`, `]`, `{"` + canary + `"}`, strings.Repeat("[", 20_000_000)} {
		_, err := ParseJSON([]byte(in))
		if err == nil || ClassOf(err) != Invalid || strings.Contains(err.Error()+HintOf(err), canary) {
			t.Errorf("JSON %.40q: %v", in, err)
		}
	}
	deep := strings.Repeat("[", 200) + strings.Repeat("]", 200)
	itself := "a: &a\n  b: *a\n"
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		bomb += string(c) + ": &" + string(c) + " [" + strings.TrimSuffix(strings.Repeat("*"+string(c-1)+",", 10), ",") + "]\n"
	}
	for _, in := range []string{"", "# nothing\n", "{" + canary, "a: b: " + canary, "\t" + canary, "a: !!binary " + canary + "!", "--- a\n---\n{", deep, itself, bomb} {
		_, err := ParseYAML([]byte(in))
		if err == nil || ClassOf(err) != Invalid || strings.Contains(err.Error()+HintOf(err), canary) {
			t.Errorf("YAML %.40q: %v", in, err)
		}
	}
}

func TestParseYAML(t *testing.T) {
	tests := []struct{ in, want string }{
		{"a: 1.10", `{"a":1.10}`},
		{"a: x\nb: 'y'\nc: \"z\\n\"", `{"a":"x","b":"y","c":"z\n"}`},
		{"a: [1, {b: null}, ~]", `{"a":[1,{"b":null},null]}`},
		// What JSON has no spelling for is written as its value.
		{"a: 0x1F\nb: .5\nc: 1_000\nd: True\ne: .inf", `{"a":31,"b":0.5,"c":1000,"d":true,"e":".inf"}`},
		{"a: yes\nb: 'true'\nc: \"1\"", `{"a":"yes","b":"true","c":"1"}`},
		{"a: |\n  x\n  y\n", `{"a":"x\ny\n"}`},
		{"a: !!binary aGVsbG8=", `{"a":"hello"}`},
		{"a: 2020-01-02", `{"a":"2020-01-02"}`},
		{"# comment\na: &x {b: c} # comment\nd: *x", `{"a":{"b":"c"},"d":{"b":"c"}}`},
		{"a: 1\n---\nb: 2", `[{"a":1},{"b":2}]`},
		{"just a string", `"just a string"`},
		{"{\"json\": [1, \"x\"]}", `{"json":[1,"x"]}`},
	}
	for _, test := range tests {
		v, err := ParseYAML([]byte(test.in))
		if err != nil {
			t.Errorf("%q: %v", test.in, err)
			continue
		}
		if got := string(v.appendJSON(nil)); got != test.want {
			t.Errorf("%q: got %s, want %s", test.in, got, test.want)
		}
	}
}

// FuzzParseJSON: what parses is written back as JSON that means the same.
func FuzzParseJSON(f *testing.F) {
	f.Add(`{"a": [1.10, "x\u0000", null, true]}`)
	f.Fuzz(func(t *testing.T, in string) {
		v, err := ParseJSON([]byte(in))
		if err != nil {
			return
		}
		if !json.Valid([]byte(in)) {
			t.Fatalf("%q is not JSON and was parsed", in)
		}
		out := v.appendJSON(nil)
		again, err := ParseJSON(out)
		if err != nil || string(again.appendJSON(nil)) != string(out) {
			t.Fatalf("%q becomes %q, %v", in, out, err)
		}
	})
}

// FuzzParseYAML: any input ends in a value that can be written, or an error.
func FuzzParseYAML(f *testing.F) {
	f.Add("a: &a [0x1F, *a]\n---\n- .inf\n")
	f.Fuzz(func(t *testing.T, in string) {
		v, err := ParseYAML([]byte(in))
		if err == nil && !json.Valid(v.appendJSON(nil)) {
			t.Fatalf("%q is written as %q", in, v.appendJSON(nil))
		}
	})
}
