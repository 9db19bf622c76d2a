package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// healthcheckCommand asks a service on this machine whether it is ready. The image has no shell and no curl, so the
// binary checks itself.
type healthcheckCommand struct {
	URL     *url.URL      `arg:"" placeholder:"URL" help:"http://HOST:PORT/PATH must answer 200; tcp://HOST:PORT must accept a connection."`
	Timeout time.Duration `default:"2s" help:"How long it may take."`
}

// Run returns an error, and so a failing exit status, unless the service answers in time.
func (c healthcheckCommand) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	if c.URL.Scheme == "tcp" {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", c.URL.Host)
		if err != nil {
			return err // names address and cause
		}
		return conn.Close()
	}
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
