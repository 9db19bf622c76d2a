package edge

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/dianchao/dianchao/pkg/meter"
)

// These tests follow docs/browser.md, "The ClickToCopy dialect".

const copyRequest = `{"ModuleName":"ClickToCopy","Content":{"ConcentratorNo":"101","WaterMtrAddress":"101001"}}`

func TestClickToCopyReads(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	connectPeer(t, s.URL()).hold("101", func(r request) {
		if r.Stages || r.ID.IsZero() {
			t.Errorf("the command is %s", r.message.Data)
		}
		r.tell(meter.StageAccepted, "")
		r.done("123.450")
	})
	const answer = `{"ConcentratorNo":"101","WaterMtrAddress":"101001","AccumVal":123.450,"IsDownCommand":true}`
	c := n.page(t)
	for _, row := range []struct{ name, text string }{
		{"as the original's pages write it", copyRequest},
		{"numbers without quotes", `{"ModuleName":"ClickToCopy","Content":{"ConcentratorNo":101,"WaterMtrAddress":101001}}`},
		{"white space and unknown fields", ` { "Extra" : [] , "Content" : {"WaterMtrAddress":" 101001","ConcentratorNo":"101 ","x":null}, "ModuleName" : "ClickToCopy" } `},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := client{t, c.conn}
			c.send(row.text)
			c.wantText(answer)
		})
	}
}

func TestClickToCopyRefusesInChineseAndStaysOpen(t *testing.T) {
	n := startEdge(t, embedNATS(t).URL(), nil)
	c := n.page(t)
	for _, row := range []struct{ name, text, want string }{
		{"no request", `hello`, "请发送点抄指令数据"},
		{"empty", ``, "请发送点抄指令数据"},
		{"no JSON", `ConcentratorNo=101`, "请发送点抄指令数据"},
		{"no content", `{"ConcentratorNo":"101","WaterMtrAddress":"101001"}`, "请发送点抄指令数据"},
		{"no meter", `{"Content":{"ConcentratorNo":"101"}}`, "请发送点抄指令数据"},
		{"no concentrator", `{"Content":{"WaterMtrAddress":"101001"},"x":"ConcentratorNo"}`, "请发送点抄指令数据"},
		{"names in another case", `{"content":{"ConcentratorNo":"101","WaterMtrAddress":"101001"}}`, "请发送点抄指令数据"},
		{"empty number", `{"Content":{"ConcentratorNo":"","WaterMtrAddress":"101001"}}`, "请发送点抄指令数据"},
		{"null", `{"Content":{"ConcentratorNo":null,"WaterMtrAddress":"101001"}}`, "请发送点抄指令数据"},
		{"an array", `[{"ConcentratorNo":"101","WaterMtrAddress":"101001"}]`, "请发送点抄指令数据"},
		{"not UTF-8", "{\"Content\":{\"ConcentratorNo\":\"101\",\"WaterMtrAddress\":\"1\xff\"}}", "请发送点抄指令数据"},
		{"too large", strings.Replace(copyRequest, "101", strings.Repeat("1", 5000), 1), "请发送点抄指令数据"},
		{"illegal concentrator", `{"Content":{"ConcentratorNo":"10.1","WaterMtrAddress":"101001"}}`, `集中器编号 "10.1" 不合法：只能用字母、数字、“-”和“_”，最多 32 个字符`},
		{"illegal meter", `{"Content":{"ConcentratorNo":"101","WaterMtrAddress":"1\n>"}}`, `水表地址 "1\n>" 不合法：只能用字母、数字、“-”和“_”，最多 32 个字符`},
		{"nobody is there", copyRequest, "抄表应用未启动"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := client{t, c.conn}
			c.send(row.text)
			c.wantText(row.want)
		})
	}
}

func TestClickToCopyRefusesTheSameMeterWhileItIsRead(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	taken := make(chan request, 1)
	connectPeer(t, s.URL()).hold("101", func(r request) { taken <- r })
	c, other := n.page(t), n.page(t)
	c.send(copyRequest)
	first := <-taken
	const again = `{"ModuleName":"ClickToCopy", "Content":{"ConcentratorNo":101,"WaterMtrAddress":"101001"}}`
	c.send(again)
	c.wantText("不要重复发送，" + again)
	// Another meter, and the same one on another connection, are no repetition.
	c.send(strings.Replace(copyRequest, "101001", "101002", 1))
	answerAll(<-taken)
	c.wantText(`{"ConcentratorNo":"101","WaterMtrAddress":"101002","AccumVal":101002.50,"IsDownCommand":true}`)
	other.send(copyRequest)
	answerAll(<-taken)
	other.wantText(`{"ConcentratorNo":"101","WaterMtrAddress":"101001","AccumVal":101001.50,"IsDownCommand":true}`)
	answerAll(first)
	c.wantText(`{"ConcentratorNo":"101","WaterMtrAddress":"101001","AccumVal":101001.50,"IsDownCommand":true}`)
	c.send(copyRequest)
	answerAll(<-taken)
	c.wantText(`{"ConcentratorNo":"101","WaterMtrAddress":"101001","AccumVal":101001.50,"IsDownCommand":true}`)
}

func TestClickToCopySaysWhyAReadFailed(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	p := connectPeer(t, s.URL())
	wants := map[meter.Code]string{
		meter.CodeInternal:            "水表 %s 抄读失败（集中器 101）：系统内部错误，请重试",
		meter.CodeBadCommand:          "水表 %s 无法抄读（集中器 101）：指令不合法：said the gateway",
		meter.CodeConcentratorOffline: "集中器 101 不在线（水表 %s）",
		meter.CodeLinkLost:            "集中器 101 链路中断，水表 %s 未抄到，请重试",
		meter.CodeBusy:                "集中器 101 总线繁忙，水表 %s 未抄读，请稍后再试",
		meter.CodeExpired:             "集中器 101 排队超时，水表 %s 的指令未下发，请重试",
		meter.CodeMeterSilent:         "水表 %s 无应答（集中器 101）",
		meter.CodeMeterRefused:        "水表 %s 拒绝抄读（集中器 101）：said the gateway",
		meter.CodeBadAnswer:           "水表 %s 的应答无法识别（集中器 101）：said the gateway",
		meter.CodeCancelled:           "水表 %s 的抄读已取消（集中器 101）",
		meter.CodeRateLimited:         "点抄过于频繁，水表 %s 未抄读（集中器 101），请稍后再试",
		meter.CodeTooManyCommands:     "同时点抄过多，水表 %s 未抄读（集中器 101），请等待前面的应答",
		meter.CodeDraining:            "服务即将停止，水表 %s 未抄读（集中器 101），请重新连接后再试",
	}
	p.post(p.link("101", meter.LinkUp, time.Now()))
	until(t, "the link is known", func() bool { return !n.board.empty() })
	byMeter := map[string]meter.Code{}
	for _, code := range meter.Codes() {
		byMeter[fmt.Sprint(100+int(code))] = code
	}
	p.hold("101", func(r request) { r.fail(byMeter[r.Meter.String()], "said\n the gateway") })
	c := n.page(t)
	for m, code := range byMeter {
		t.Run(code.String(), func(t *testing.T) {
			c := client{t, c.conn}
			c.send(strings.Replace(copyRequest, "101001", m, 1))
			c.wantText(fmt.Sprintf(wants[code], m))
		})
	}
}

func TestClickToCopyAnswersWithoutAVolumeOrReading(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	connectPeer(t, s.URL()).hold("101", func(r request) {
		switch r.Meter.String() {
		case "1":
			r.tell(meter.StageDone, `"reading":{"volume_m3":null}`)
		case "2":
			r.tell(meter.StageDone, "")
		case "3":
			r.tell(meter.StageDone, `"reading":{"volume_m3":"a lot"}`)
		}
	})
	c := n.page(t)
	for m, want := range map[string]string{
		"1": "水表 1 未返回累计流量（集中器 101）",
		"2": "水表 2 抄读失败（集中器 101）：系统内部错误，请重试",
		"3": "水表 3 的应答无法识别（集中器 101）：\"a lot\" is not a decimal number",
	} {
		c.send(strings.Replace(copyRequest, "101001", m, 1))
		c.wantText(want)
	}
}

func TestClickToCopySaysSinceWhenAConcentratorIsOffline(t *testing.T) {
	s := embedNATS(t)
	n := startEdge(t, s.URL(), nil)
	p := connectPeer(t, s.URL())
	p.post(p.link("101", meter.LinkDown, time.Date(2026, 11, 22, 8, 0, 1, 0, time.UTC)))
	until(t, "the link is known", func() bool { return !n.board.empty() })
	c := n.page(t)
	c.send(copyRequest)
	c.wantText("集中器 101 不在线，自 2026-11-22 16:00:01 起（水表 101001）")
	c.send(strings.ReplaceAll(copyRequest, "101", "404"))
	c.wantText("集中器 404 不在线（水表 404001）")
}

func TestClickToCopyClosesOnBinaryAndWhenTheNodeLeaves(t *testing.T) {
	n := startEdge(t, embedNATS(t).URL(), nil)
	c := n.page(t)
	if err := c.conn.Write(t.Context(), websocket.MessageBinary, []byte(copyRequest)); err != nil {
		t.Fatal(err)
	}
	c.wantClose(closeUnsupported)
	c = n.page(t)
	n.leave()
	c.wantClose(websocket.StatusGoingAway)
}
