package edge

import (
	"context"
	"net/http"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/pkg/telemetry"
)

// beginSpan begins the span "read", which lasts from the client's message to its answer. Without a collector there is none.
func (c *command) beginSpan() {
	e := c.session.edge
	if e.config.Tracer == nil {
		return
	}
	ctx := context.Background()
	if c.session.parent != nil {
		ctx = trace.ContextWithRemoteSpanContext(ctx, *c.session.parent)
	}
	_, c.span = e.config.Tracer.Start(ctx, "read", trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("protocol", dialectNames[c.session.dialect]),
		attribute.String("edge", e.id.String()),
		attribute.String("command", c.Command.ID.String()),
		attribute.String("concentrator", c.Concentrator.String()),
		attribute.String("meter", c.Command.Meter.String()),
	))
}

func (c *command) endSpan(outcome string) {
	if c.span == nil {
		return
	}
	if outcome != outcomeDone {
		c.span.SetAttributes(attribute.String("code", outcome))
		c.span.SetStatus(codes.Error, outcome)
	}
	c.span.End()
}

// header is what travels with the command beside its body.
func (c *command) header() nats.Header {
	h := nats.Header{meter.HeaderDeadline: {meter.FormatDeadline(c.deadline)}}
	if c.span != nil {
		telemetry.Inject(c.span, h)
	}
	return h
}

// traceparent is the span of an HTTP request's sender; nil if it names none, or nobody collects traces.
func (e *Edge) traceparent(header http.Header) *trace.SpanContext {
	if e.config.Tracer == nil {
		return nil
	}
	sender := trace.SpanContextFromContext(telemetry.ExtractHTTP(header))
	if !sender.IsValid() {
		return nil
	}
	return &sender
}
