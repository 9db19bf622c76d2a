// Package nats holds the configuration of the NATS cluster; its test holds that to what each user may do.
package nats

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// start runs one server on nats.conf as it is, but for its ports, its directory and the cluster.
func start(t *testing.T) *server.Server {
	t.Helper()
	for name, value := range map[string]string{
		"NATS_NAME": "nats-1", "NATS_CLUSTER_PASSWORD": `"c"`, "NATS_EDGE_PASSWORD": `"123"`,
		"NATS_GATEWAY_PASSWORD": `"123"`, "NATS_OPERATOR_PASSWORD": `"123"`,
		"NATS_ROUTE_1": `"nats://cluster:c@nats-1:6222"`, "NATS_ROUTE_2": `"nats://cluster:c@nats-2:6222"`,
		"NATS_ROUTE_3": `"nats://cluster:c@nats-3:6222"`,
	} {
		t.Setenv(name, value)
	}
	o, err := server.ProcessConfigFile("nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Routes) != 3 || o.Routes[2].Host != "nats-3:6222" || !o.JetStream {
		t.Fatalf("routes %v, JetStream %t", o.Routes, o.JetStream)
	}
	o.Host, o.Port, o.HTTPPort, o.StoreDir = "127.0.0.1", server.RANDOM_PORT, 0, t.TempDir()
	o.Cluster, o.Routes, o.NoSigs, o.NoLog = server.ClusterOpts{}, nil, true, true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server does not become ready")
	}
	return s
}

func TestPermissions(t *testing.T) {
	s := start(t)
	for _, row := range []struct{ user, may, mayNot string }{
		{"edge", "publish meter.read.101", "publish meter.reading.101"},
		{"edge", "publish meter.cancel.101", "publish meter.link.101"},
		{"edge", "publish meter.frames.101", "publish meter.gateway.gw-1"},
		{"edge", "publish $JS.API.STREAM.INFO.KV_links", "publish $JS.API.STREAM.DELETE.KV_links"},
		{"edge", "publish $JS.API.CONSUMER.CREATE.KV_links.c.$KV.links.>", "publish $JS.API.CONSUMER.CREATE.READINGS.c"},
		{"edge", "publish $JS.FC.KV_links.c.1", "publish $KV.links.101"},
		{"edge", "subscribe meter.reply.edge-1.>", "subscribe meter.read.101"},
		{"edge", "subscribe _INBOX.abc.*", "subscribe meter.>"},
		{"edge", "publish $JS.API.STREAM.CREATE.READINGS", "publish meter.reply.edge-1.s.c"},

		{"gateway", "publish meter.link.101", "publish meter.cancel.101"},
		{"gateway", "publish meter.reading.101", "publish meter.frames.101"},
		{"gateway", "publish meter.reply.edge-1.s.c", "publish other.subject"},
		{"gateway", "publish _INBOX.abc.1", "publish $JS.API.STREAM.DELETE.READINGS"},
		{"gateway", "publish meter.read.101", "publish $JS.API.STREAM.PURGE.KV_links"},
		{"gateway", "publish meter.gateway.gw-2", "publish $JS.API.STREAM.CREATE.OTHER"},
		{"gateway", "publish $KV.links.101", "publish $KV.other.101"},
		{"gateway", "publish $KV.gateways.gw-1", "publish $SYS.REQ.SERVER.PING"},
		{"gateway", "publish $JS.API.DIRECT.GET.KV_links.$KV.links.101", "publish $JS.API.DIRECT.GET.READINGS"},
		{"gateway", "subscribe meter.read.101", "subscribe meter.reply.>"},
		{"gateway", "subscribe meter.gateway.gw-1", "subscribe >"},

		{"operator", "publish meter.read.101", "publish meter.link.101"},
		{"operator", "publish $JS.API.STREAM.INFO.READINGS", "publish $JS.API.STREAM.PURGE.READINGS"},
		{"operator", "publish $JS.API.STREAM.MSG.GET.READINGS", "publish $JS.API.STREAM.MSG.DELETE.READINGS"},
		{"operator", "subscribe meter.>", "subscribe $JS.>"},
	} {
		if err := try(t, s, row.user, row.may); err != nil {
			t.Errorf("%s may not %s: %v", row.user, row.may, err)
		}
		if err := try(t, s, row.user, row.mayNot); err == nil {
			t.Errorf("%s may %s", row.user, row.mayNot)
		}
	}
}

func TestPasswords(t *testing.T) {
	s := start(t)
	for _, as := range []nats.Option{nats.UserInfo("edge", "wrong"), nats.UserInfo("nobody", "123"), nats.Name("without a user")} {
		if nc, err := nats.Connect(s.ClientURL(), as); err == nil {
			nc.Close()
			t.Error("a stranger is let in")
		}
	}
}

// try returns what the server says to one publish or subscribe.
func try(t *testing.T, s *server.Server, user, what string) error {
	t.Helper()
	nc, err := nats.Connect(s.ClientURL(), nats.UserInfo(user, "123"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	verb, subject, _ := strings.Cut(what, " ")
	if verb == "publish" {
		err = nc.Publish(subject, []byte("{}"))
	} else {
		_, err = nc.SubscribeSync(subject)
	}
	if err != nil {
		t.Fatal(err)
	}
	// The server refuses before it answers the ping of a flush.
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return nc.LastError()
}
