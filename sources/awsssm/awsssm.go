//go:build !no_aws

package awsssm

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"secret-init/sources"
	"secret-init/sources/internal/awsconfig"
)

// maxBatch is how many parameters one GetParameters takes.
// https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html
const maxBatch = 10

type source struct {
	settings sources.Settings
	clients  awsconfig.Clients[*ssm.Client]
}

func open(settings sources.Settings) (sources.Source, error) {
	return &source{settings: settings, clients: awsconfig.Clients[*ssm.Client]{
		New: func(cfg aws.Config) *ssm.Client { return ssm.NewFromConfig(cfg) },
	}}, nil
}

// Close has nothing to give up: the SDK's sessions end by themselves.
func (*source) Close(context.Context) error { return nil }

// Group puts the parameters of a region together, by tens. AWS names a
// parameter in its answer without the version or label that was asked for, so
// two versions of one never go together.
func (s *source) Group(docs []sources.Ref) [][]sources.Ref {
	return awsconfig.Group(docs, s.settings, maxBatch, func(doc sources.Ref) []string {
		if isPath(doc) {
			return nil
		}
		return []string{bareName(doc.Path)}
	})
}

// Fetch reads one parameter or a whole path.
func (s *source) Fetch(ctx context.Context, doc sources.Ref) (*sources.Document, error) {
	if isPath(doc) {
		return s.readPath(ctx, doc)
	}
	result := s.read(ctx, []sources.Ref{doc})[0]
	return result.Document, result.Err
}

// FetchGroup reads docs with one request, and each by itself where AWS
// refuses the whole for the sake of one.
func (s *source) FetchGroup(ctx context.Context, docs []sources.Ref) []sources.Result {
	results := make([]sources.Result, len(docs))
	if len(docs) > 1 {
		results = s.read(ctx, docs)
	}
	return awsconfig.ReadRest(ctx, docs, results, s.Fetch)
}

// read leaves empty, of several documents, the results that it cannot say
// anything about.
func (s *source) read(ctx context.Context, docs []sources.Ref) []sources.Result {
	client, region, err := s.clients.Client(ctx, awsconfig.RegionOf(docs...))
	if err != nil {
		return awsconfig.Same(len(docs), err)
	}
	names := make([]string, len(docs))
	for i, doc := range docs {
		names[i] = selectName(doc)
	}
	answer, err := client.GetParameters(ctx, &ssm.GetParametersInput{Names: names, WithDecryption: aws.Bool(true)})
	if err != nil {
		e := translate(ctx, docs[0], region, err)
		if len(docs) == 1 || !awsconfig.Divisible(err, e) {
			return awsconfig.Same(len(docs), e)
		}
		return make([]sources.Result, len(docs))
	}
	results := make([]sources.Result, len(docs))
	for i, doc := range docs {
		j := slices.IndexFunc(answer.Parameters, func(p types.Parameter) bool {
			name := bareName(doc.Path)
			return bareName(aws.ToString(p.Name)) == name || bareName(aws.ToString(p.ARN)) == name
		})
		switch {
		case j >= 0:
			results[i].Document, results[i].Err = document(answer.Parameters[j])
		case slices.Contains(answer.InvalidParameters, names[i]) || len(docs) == 1:
			results[i].Document, results[i].Err = s.readInvalid(ctx, client, doc, region)
		}
	}
	return results
}

// readInvalid is for what GetParameters does not know. Some stand-ins for AWS
// (moto 5.2 among them) know an ARN in GetParameter only; where policy denies
// that call, the first answer stands.
func (s *source) readInvalid(ctx context.Context, client *ssm.Client, doc sources.Ref, region string) (*sources.Document, error) {
	if awsconfig.IsARN(doc.Path) {
		answer, err := client.GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String(selectName(doc)), WithDecryption: aws.Bool(true)})
		if err == nil && answer.Parameter != nil {
			return document(*answer.Parameter)
		}
		if err != nil {
			if e := translate(ctx, doc, region, err); e.Class == sources.Unavailable {
				return nil, e
			}
		}
	}
	return nil, notFound(doc, region)
}

// readPath reads everything below a path, page by page.
func (s *source) readPath(ctx context.Context, doc sources.Ref) (*sources.Document, error) {
	client, region, err := s.clients.Client(ctx, awsconfig.RegionOf(doc))
	if err != nil {
		return nil, err
	}
	pages := ssm.NewGetParametersByPathPaginator(client, &ssm.GetParametersByPathInput{
		Path: aws.String(doc.Path), Recursive: aws.Bool(true), WithDecryption: aws.Bool(true),
	}, func(o *ssm.GetParametersByPathPaginatorOptions) { o.StopOnDuplicateToken = true })
	all := &sources.Value{Kind: sources.Object}
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, translate(ctx, doc, region, err)
		}
		for _, p := range page.Parameters {
			all.Members = append(all.Members, sources.ValueMember{
				Name:  strings.TrimPrefix(aws.ToString(p.Name), doc.Path),
				Value: &sources.Value{Kind: sources.String, Text: []byte(aws.ToString(p.Value))},
			})
		}
	}
	if len(all.Members) == 0 {
		return nil, sources.Errorf(sources.NotFound, "look with: aws ssm get-parameters-by-path --region "+region+" --recursive --path "+doc.Path,
			"has no parameter below it in %s", region)
	}
	return &sources.Document{Parse: func([]byte) (*sources.Value, error) { return all, nil }}, nil
}

func document(p types.Parameter) (*sources.Document, error) {
	value := []byte(aws.ToString(p.Value))
	if len(value) > awsconfig.MaxValue {
		return nil, sources.Errorf(sources.Invalid, awsconfig.HintAWSItself, "is larger than %d KiB", awsconfig.MaxValue>>10)
	}
	doc := &sources.Document{Bytes: value, Parse: sources.ParseJSON, Version: strconv.FormatInt(p.Version, 10)}
	if p.Type == types.ParameterTypeStringList {
		doc.Parse = parseList
	}
	return doc, nil
}

// parseList makes the items of a StringList selectable: #/0. AWS separates
// them by commas and has no way to write a comma in one.
func parseList(value []byte) (*sources.Value, error) {
	list := &sources.Value{Kind: sources.Array}
	for _, item := range strings.Split(string(value), ",") {
		list.Items = append(list.Items, &sources.Value{Kind: sources.String, Text: []byte(item)})
	}
	return list, nil
}

// selectName spells a parameter with its version or label, as AWS takes it.
func selectName(doc sources.Ref) string {
	for _, name := range []string{paramVersion, paramLabel} {
		if value := doc.Params[name]; value != "" {
			return doc.Path + ":" + value
		}
	}
	return doc.Path
}

// bareName is what a name and an ARN of the same parameter have in common:
// parameter/app/db is /app/db, and parameter/db is db.
func bareName(path string) string {
	if arn, err := awsconfig.ParseARN(path); err == nil {
		path = strings.TrimPrefix(arn.Resource, "parameter")
	}
	return strings.TrimPrefix(path, "/")
}
