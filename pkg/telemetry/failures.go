package telemetry

import (
	"context"
	"log/slog"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/dianchao/dianchao/pkg/meter"
)

// Failure is a command that failed, as its log line tells it.
type Failure struct {
	ID           meter.CommandID
	Concentrator meter.ConcentratorID
	Meter        meter.Address
	Code         meter.Code
	Message      string
	Gateway      string // that answered; "" if none did
}

// FailureLog writes one line for each failed command, but of a storm only some: of either level at most
// failureRate lines a second on average. What is left out is counted, in the next line of that level and in Unlogged.
type FailureLog struct {
	log      *slog.Logger
	levels   [2]failureLevel // field, ours
	unlogged atomic.Int64
}

type failureLevel struct {
	limiter *rate.Limiter
	waiting atomic.Int64 // left out since the last line
}

// A line has about 300 bytes, so a storm that lasts fills at most 130 MB a day and level.
const (
	failureRate  = 5
	failureBurst = 100
)

// NewFailureLog returns the log of one service, whose lines carry what log does.
func NewFailureLog(log *slog.Logger) *FailureLog {
	l := &FailureLog{log: log}
	for i := range l.levels {
		l.levels[i].limiter = rate.NewLimiter(failureRate, failureBurst)
	}
	return l
}

// Unlogged is how many failed commands have no line of their own.
func (l *FailureLog) Unlogged() int64 { return l.unlogged.Load() }

// Add writes f's line, or counts it.
func (l *FailureLog) Add(f Failure) {
	level, of := slog.LevelInfo, &l.levels[0]
	if ours(f.Code) {
		level, of = slog.LevelWarn, &l.levels[1]
	}
	if !l.log.Enabled(context.Background(), level) {
		return
	}
	if !of.limiter.Allow() {
		of.waiting.Add(1)
		l.unlogged.Add(1)
		return
	}
	fields := []slog.Attr{
		slog.String("id", f.ID.String()), slog.String("concentrator", f.Concentrator.String()), slog.String("meter", f.Meter.String()),
		slog.String("code", f.Code.String()),
	}
	if f.Gateway != "" {
		fields = append(fields, slog.String("gateway", f.Gateway))
	}
	fields = append(fields, slog.String("message", f.Message))
	if n := of.waiting.Swap(0); n > 0 {
		fields = append(fields, slog.Int64("unlogged_before", n))
	}
	l.log.LogAttrs(context.Background(), level, "a command failed", fields...)
}

// ours reports whether a code speaks of our own machines rather than of what stands in the field or of who asked.
func ours(c meter.Code) bool {
	return c == meter.CodeInternal || c == meter.CodeLinkLost || c == meter.CodeBusy
}
