package awsconfig

import (
	"maps"
	"strings"

	"secret-init/sources"
)

// ParamRegion is the parameter with which a reference names its region.
const ParamRegion = "region"

// CheckParams refuses empty parameters and what cannot be a region, and drops
// a region that the ARN names already: one document has one spelling.
func CheckParams(ref sources.Ref, names ...string) (sources.Ref, error) {
	for _, name := range names {
		if value, ok := ref.Params[name]; ok && value == "" {
			return ref, sources.Errorf(sources.Invalid, "leave it out, or give it a value", "parameter %q is empty", name)
		}
	}
	if region, ok := ref.Params[ParamRegion]; ok {
		if err := CheckRegion(region); err != nil {
			return ref, err
		}
	}
	if IsARN(ref.Path) {
		arn, err := ParseARN(ref.Path)
		if err != nil {
			return ref, err
		}
		if ref.Params[ParamRegion] == arn.Region {
			ref = Without(ref, ParamRegion)
		}
	}
	return ref, nil
}

// ValidName reports whether a name has only the characters that AWS allows in
// the name of a secret or a parameter, or the ! of those that one of its
// services manages ("rds!cluster-...").
// https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html
func ValidName(name string) bool {
	return name != "" && strings.IndexFunc(name, func(c rune) bool {
		return (c < 'a' || 'z' < c) && (c < 'A' || 'Z' < c) && (c < '0' || '9' < c) && !strings.ContainsRune("/_+=.@-!", c)
	}) < 0
}

// Without is a copy of ref that lacks a parameter.
func Without(ref sources.Ref, name string) sources.Ref {
	ref.Params = maps.Clone(ref.Params)
	delete(ref.Params, name)
	if len(ref.Params) == 0 {
		ref.Params = nil
	}
	return ref
}

// RegionOf is the first region that one of docs names itself; empty when none does.
func RegionOf(docs ...sources.Ref) string {
	for _, doc := range docs {
		if region := doc.Params[ParamRegion]; region != "" {
			return region
		}
		if arn, err := ParseARN(doc.Path); err == nil {
			return arn.Region
		}
	}
	return ""
}
