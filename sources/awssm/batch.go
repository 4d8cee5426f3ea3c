//go:build !no_aws

package awssm

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"secret-init/sources"
	"secret-init/sources/internal/awsconfig"
)

// maxBatch is how many secrets one BatchGetSecretValue takes.
// https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_BatchGetSecretValue.html
const maxBatch = 20

// Group puts the secrets of a region together, by twenties. The batch call
// knows neither stage nor version, so these go alone.
func (s *source) Group(docs []sources.Ref) [][]sources.Ref {
	return awsconfig.Group(docs, s.settings, maxBatch, func(doc sources.Ref) []string {
		if doc.Params[paramStage] != "" || doc.Params[paramVersion] != "" {
			return nil
		}
		arn, err := awsconfig.ParseARN(doc.Path)
		if err != nil {
			return []string{doc.Path}
		}
		name := strings.TrimPrefix(arn.Resource, "secret:")
		if isFull(name) {
			// A whole ARN, or a partial one of a name that looks like it.
			return []string{name, name[:len(name)-suffixLen]}
		}
		return []string{name}
	})
}

// FetchGroup reads docs with one request where policy allows it.
func (s *source) FetchGroup(ctx context.Context, docs []sources.Ref) []sources.Result {
	results := make([]sources.Result, len(docs))
	if len(docs) > 1 && !s.noBatch.Load() {
		results = s.batch(ctx, docs)
	}
	return awsconfig.ReadRest(ctx, docs, results, s.Fetch)
}

// batch leaves empty the results that it cannot say anything about.
func (s *source) batch(ctx context.Context, docs []sources.Ref) []sources.Result {
	results := make([]sources.Result, len(docs))
	client, region, err := s.clients.Client(ctx, awsconfig.RegionOf(docs...))
	if err != nil {
		return awsconfig.Same(len(docs), err)
	}
	ids := make([]string, len(docs))
	for i, doc := range docs {
		ids[i] = doc.Path
	}
	answer, err := client.BatchGetSecretValue(ctx, &secretsmanager.BatchGetSecretValueInput{SecretIdList: ids})
	if err != nil {
		e := awsconfig.Request{Action: "secretsmanager:BatchGetSecretValue", Resource: "*"}.Translate(ctx, err)
		if !awsconfig.Divisible(err, e) {
			return awsconfig.Same(len(docs), e)
		}
		if e.Class == sources.Denied && s.noBatch.CompareAndSwap(false, true) {
			s.settings.Warn("aws-sm reads secrets one by one: allow secretsmanager:BatchGetSecretValue on * to read twenty with one request")
		}
		return results
	}
	for i, doc := range docs {
		if j := slices.IndexFunc(answer.Errors, func(e types.APIErrorType) bool { return aws.ToString(e.SecretId) == doc.Path }); j >= 0 {
			results[i].Err = secretError(doc, region, aws.ToString(answer.Errors[j].ErrorCode))
		} else if j := slices.IndexFunc(answer.SecretValues, func(v types.SecretValueEntry) bool { return matches(doc, v) }); j >= 0 {
			value := answer.SecretValues[j]
			results[i].Document, results[i].Err = document(doc, region, value.SecretString, value.SecretBinary, value.VersionId)
		}
	}
	return results
}

func matches(doc sources.Ref, entry types.SecretValueEntry) bool {
	arn := aws.ToString(entry.ARN)
	if !awsconfig.IsARN(doc.Path) {
		return aws.ToString(entry.Name) == doc.Path
	}
	return arn == doc.Path || isFull(arn) && arn[:len(arn)-suffixLen] == doc.Path
}

// secretError is the error that a batch reports for one of its secrets.
func secretError(doc sources.Ref, region, code string) error {
	code = awsconfig.CleanCode(code)
	if e := fromCode(doc, region, code); e != nil {
		return e
	}
	if e := request(doc, region).FromCode(code); e != nil {
		return e
	}
	return sources.Errorf(sources.Invalid, awsconfig.HintAWSItself, "cannot be read: AWS answered %s", code)
}
