package gateway

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/dianchao/dianchao/pkg/meter"
)

// forgetLease makes every other gateway hear nothing of g, as if it were dead.
func (g *Gateway) forgetLease(ctx context.Context) error {
	js, err := jetstream.New(g.nc)
	if err != nil {
		return err
	}
	kv, err := js.KeyValue(ctx, meter.BucketGateways)
	if err != nil {
		return err
	}
	return kv.Purge(ctx, g.id.String())
}
