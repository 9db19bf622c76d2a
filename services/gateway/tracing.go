package gateway

import (
	"context"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/pkg/telemetry"
)

// traced is a command's span, and that of the exchange which it waits for. nil: nobody collects traces.
type traced struct {
	tracer   trace.Tracer
	ctx      context.Context // holds the command's span
	command  trace.Span
	exchange trace.Span // nil while nothing of it is on the wire
}

// trace begins the span "command", a child of whatever span m's headers name.
func (g *Gateway) trace(m *nats.Msg, c *command) *traced {
	if g.config.Tracer == nil {
		return nil
	}
	t := &traced{tracer: g.config.Tracer}
	t.ctx, t.command = t.tracer.Start(telemetry.Extract(m.Header), "command", trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		attribute.String("gateway", g.id.String()),
		attribute.String("driver", c.totals.name),
		attribute.String("command", c.ID.String()),
		attribute.String("concentrator", c.Target.Concentrator.String()),
		attribute.String("meter", c.Target.Meter.String()),
		attribute.String("lane", c.Lane.String()),
	))
	return t
}

// stage notes how far the command is. A second "sent" is a repetition: the exchange before it brought noise.
func (t *traced) stage(a meter.Answer) {
	switch {
	case t == nil:
	case a.Stage == meter.StageQueued:
		t.command.AddEvent("queued", trace.WithAttributes(attribute.Int("position", a.Position)))
	case a.Stage == meter.StageSent:
		t.command.AddEvent("sent")
		t.endExchange(meter.Answer{Error: meter.Errorf(meter.CodeBadAnswer, "repeated because of noise")})
		_, t.exchange = t.tracer.Start(t.ctx, "exchange", trace.WithSpanKind(trace.SpanKindClient))
	case a.Stage.Terminal():
		t.endExchange(a)
		describe(t.command, a)
		t.command.End()
	}
}

func (t *traced) endExchange(a meter.Answer) {
	if t.exchange == nil {
		return
	}
	describe(t.exchange, a)
	t.exchange.End()
	t.exchange = nil
}

func describe(s trace.Span, a meter.Answer) {
	if a.Error == nil {
		s.SetAttributes(attribute.String("source", a.Source.String()))
		return
	}
	s.SetAttributes(attribute.String("code", a.Error.Code.String()))
	s.SetStatus(codes.Error, a.Error.Message)
}

// handOver ends the span of a command that goes on at another link, and has that link's hang below it.
func (t *traced) handOver(h nats.Header) {
	if t == nil {
		return
	}
	telemetry.Inject(t.command, h)
	t.command.AddEvent("handed over")
	t.command.End()
}
