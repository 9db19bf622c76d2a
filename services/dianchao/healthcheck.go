package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// healthcheckCommand asks a service on this machine whether it is ready. The image has no shell and no curl, so the
// binary checks itself.
type healthcheckCommand struct {
	URL     *url.URL      `arg:"" placeholder:"URL" help:"What must answer 200, e.g. http://127.0.0.1:9464/readyz."`
	Timeout time.Duration `default:"2s" help:"How long it may take."`
}

// Run returns an error, and so a failing exit status, unless the URL answers 200 in time.
func (c healthcheckCommand) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL.String(), nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", c.URL, err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err // names method, URL and cause
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", c.URL, answer.Status)
	}
	return nil
}
