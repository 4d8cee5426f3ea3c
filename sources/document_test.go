package sources

import (
	"strings"
	"testing"
)

func selectFrom(t *testing.T, document *Document, spelled string) (string, error) {
	t.Helper()
	ref, err := ParseRef(spelled)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := document.Select(ref)
	return string(secret.Reveal()), err
}

// The document of RFC 6901, section 5.
const pointers = `{"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, "k\"l": 6, " ": 7, "m~n": 8}`

func TestSelectPointers(t *testing.T) {
	document := &Document{Bytes: []byte(pointers), Parse: ParseJSON}
	for pointer, want := range map[string]string{
		"/foo": `["bar","baz"]`, "/foo/0": "bar", "/foo/1": "baz", "/": "0", "/a~1b": "1", "/c%d": "2", "/e^f": "3",
		"/g|h": "4", `/i\j`: "5", `/k"l`: "6", "/ ": "7", "/m~0n": "8",
		// Without a slash it is a key, taken literally.
		"foo": `["bar","baz"]`, "a/b": "1", "m~n": "8", "c%d": "2",
	} {
		if got, err := selectFrom(t, document, "x:doc#"+pointer); err != nil || got != want {
			t.Errorf("#%s: got %q, %v; want %q", pointer, got, err, want)
		}
	}
	if got, err := selectFrom(t, document, "x:doc"); err != nil || got != pointers {
		t.Errorf("the whole document: %q, %v", got, err)
	}
}

func TestSelect(t *testing.T) {
	document := &Document{Bytes: []byte(`{"s": " x\n", "n": 1.10, "t": true, "e": "", "o": {"k": [1, null]}, "b": "aGVs\nbG8=", "u": "p@ss w+rd/ü", "q": "a\"\n<&>"}`), Parse: ParseJSON}
	for spelled, want := range map[string]string{
		"x:doc#s": " x\n", "x:doc#n": "1.10", "x:doc#t": "true", "x:doc#e": "", "x:doc#o": `{"k":[1,null]}`,
		"x:doc?decode=base64#b":             "hello",
		"x:doc?encode=url#u":                "p%40ss%20w%2Brd%2F%C3%BC",
		"x:doc?encode=json#q":               `"a\"\n<&>"`,
		"x:doc?encode=url&decode=base64#b":  "hello",
		"x:doc?encode=json&decode=base64#b": `"hello"`,
		"x:doc?encode=json#n":               `"1.10"`,
	} {
		if got, err := selectFrom(t, document, spelled); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", spelled, got, err, want)
		}
	}
}

func TestSelectErrors(t *testing.T) {
	object := &Document{Bytes: []byte(`{"password": "` + canary + `", "username": "app", "null": null, "list": ["` + canary + `"], "none": []}`), Parse: ParseJSON}
	many := &Document{Bytes: []byte(`{"k01":1,"k02":1,"k03":1,"k04":1,"k05":1,"k06":1,"k07":1,"k08":1,"k09":1,"k10":1,"k11":1,"k12":1,"k13":1,"k14":1,"k15":1,"k16":1,"k17":1,"k18":1,"k19":1,"k20":1,"k21":1,"k22":1}`), Parse: ParseJSON}
	whole := &Document{Bytes: []byte(canary)}
	names := &Document{Parse: func([]byte) (*Value, error) { return &Value{Kind: Object}, nil }}
	tests := []struct {
		document   *Document
		ref        string
		class      Class
		what, hint string
	}{
		{object, "x:doc#pasword", NotFound, `x doc has no key "pasword"`, "it has: list, none, null, password, username"},
		{object, "x:doc#/pasword", NotFound, `x doc has no key "pasword" (in pointer /pasword)`, "it has: list, none, null, password, username"},
		{object, "x:doc#null", Invalid, `x doc has null at key "null"`, "give the key a value at the source, or name another key"},
		{object, "x:doc#/list/1", NotFound, `x doc has no item 1: the list has 1 (in pointer /list/1)`, "it has: item 0"},
		{object, "x:doc#/list/-", Invalid, `x doc is a list of 1, and "-" is not the number of an item (in pointer /list/-)`, "it has: item 0"},
		{object, "x:doc#/list/-1", Invalid, `x doc is a list of 1, and "-1" is not the number of an item (in pointer /list/-1)`, "it has: item 0"},
		{object, "x:doc#/list/00", Invalid, `x doc is a list of 1, and "00" is not the number of an item (in pointer /list/00)`, "it has: item 0"},
		{object, "x:doc#/none/0", NotFound, `x doc has no item 0: the list has 0 (in pointer /none/0)`, "leave that key out to get the whole list: it is empty"},
		{object, "x:doc#/password/x", Invalid, `x doc has no key "x": it is not an object (in pointer /password/x)`, "leave that key out to get the whole value"},
		{object, "x:doc?decode=base64#password", Invalid, "x doc holds a value that is not base64", "leave decode=base64 out"},
		{many, "x:doc#k0", NotFound, `x doc has no key "k0"`, "it has: k01, k02, k03, k04, k05, k06, k07, k08, k09, k10, k11, k12, k13, k14, k15, k16, k17, k18, k19, k20, and 2 more"},
		{names, "x:doc#a", NotFound, `x doc has no key "a"`, "leave the #key out to get the whole document: it has no keys"},
		{names, "x:doc", Invalid, "x doc is a set of names, not one value", "name one with #key, or take all of them with --from"},
		{whole, "x:doc#a", Invalid, "x doc is one value, so it has no keys", "leave the #key out to get the whole document"},
		{&Document{Bytes: []byte(canary), Parse: ParseJSON}, "x:doc#a", Invalid, "x doc is not JSON, so it has no keys", "leave the #key out to get the whole document"},
	}
	for _, test := range tests {
		_, err := selectFrom(t, test.document, test.ref)
		if err == nil || ClassOf(err) != test.class || err.Error() != test.what || HintOf(err) != test.hint {
			t.Errorf("%s: class %v, %v, hint %q", test.ref, ClassOf(err), err, HintOf(err))
		}
	}
}

func TestMembers(t *testing.T) {
	document := &Document{Bytes: []byte(`{"b": "x", "a": 1.10, "e": ""}`), Parse: ParseJSON}
	members, err := document.Members(Ref{Scheme: "x", Path: "doc", Params: map[string]string{"encode": "json"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range members {
		got = append(got, m.Name+"="+string(m.Value.Reveal()))
	}
	if text := strings.Join(got, " "); text != `b="x" a="1.10" e=""` {
		t.Error(text)
	}
}

func TestMembersErrors(t *testing.T) {
	for in, want := range map[string][2]string{
		`{"a": "x", "d/b": {"us~er": "` + canary + `"}}`: {`x doc has a nested value at key "d/b"`, "name what you need of it: x:doc?v=1#/d~1b/us~0er"},
		`{"l": [1]}`:              {`x doc has a nested value at key "l"`, "name what you need of it: x:doc?v=1#/l/0"},
		`{"o": {}}`:               {`x doc has a nested value at key "o"`, "name what you need of it: x:doc?v=1#/o/0"},
		`{"n": null}`:             {`x doc has null at key "n"`, "give the key a value at the source, or name another key"},
		`["` + canary + `"]`:      {"x doc is not an object, so it has no names to take secrets from", "make one secret of it in the config file, as in NAME: x:doc?v=1"},
		`{"a": "` + canary:        {"x doc is not JSON, so it has no keys", "make one secret of it in the config file, as in NAME: x:doc?v=1"},
		`{"b": "` + canary + `"}`: {"x doc holds a value that is not base64", "leave decode=base64 out"},
	} {
		ref := Ref{Scheme: "x", Path: "doc", Params: map[string]string{"v": "1", "optional": "true"}}
		if strings.HasPrefix(in, `{"b"`) {
			ref = ref.WithParam("decode", "base64")
		}
		document := &Document{Bytes: []byte(in), Parse: ParseJSON}
		_, err := document.Members(ref)
		if err == nil || ClassOf(err) != Invalid || err.Error() != want[0] || HintOf(err) != want[1] {
			t.Errorf("%s: %v, hint %q", in, err, HintOf(err))
		}
	}
	_, err := (&Document{Bytes: []byte(canary)}).Members(Ref{Scheme: "x", Path: "doc"})
	if err == nil || err.Error() != "x doc is one value, so it has no keys" {
		t.Error(err)
	}
}

func TestDocumentWipe(t *testing.T) {
	document := &Document{Bytes: []byte(canary)}
	secret, err := document.Select(Ref{Scheme: "x", Path: "doc"})
	if err != nil {
		t.Fatal(err)
	}
	document.Wipe()
	if strings.Trim(string(document.Bytes), "\x00") != "" || string(secret.Reveal()) != canary {
		t.Error("Wipe reaches the secret that was selected, or does not reach the document")
	}
}

// FuzzPointer: any key of a document can be named by a pointer.
func FuzzPointer(f *testing.F) {
	f.Add("a/b", "m~n")
	f.Add("~1", "")
	f.Fuzz(func(t *testing.T, outer, inner string) {
		leaf := &Value{Kind: String, Text: []byte("found")}
		root := &Value{Kind: Object, Members: []ValueMember{{outer, &Value{Kind: Object, Members: []ValueMember{{inner, leaf}}}}}}
		document := &Document{Bytes: []byte("x"), Parse: func([]byte) (*Value, error) { return root, nil }}
		secret, err := document.Select(Ref{Scheme: "x", Path: "doc", Key: "/" + escapePointer(outer) + "/" + escapePointer(inner)})
		if err != nil || string(secret.Reveal()) != "found" {
			t.Fatalf("%q, %q: %v", outer, inner, err)
		}
	})
}
