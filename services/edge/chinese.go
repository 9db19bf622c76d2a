package edge

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dianchao/dianchao/pkg/meter"
)

// The texts of the original program, to the letter: pages compare them.
const (
	textConnected = "连接成功"
	textNoRequest = "请发送点抄指令数据"
	textRepeated  = "不要重复发送，" // the message as it came follows
	textNoGateway = "抄表应用未启动"
)

// failureLines say why a read failed: %[1]s is the concentrator, %[2]s the meter, %[3]s what the other side said.
var failureLines = map[meter.Code]string{
	meter.CodeInternal:            "水表 %[2]s 抄读失败（集中器 %[1]s）：系统内部错误，请重试",
	meter.CodeBadCommand:          "水表 %[2]s 无法抄读（集中器 %[1]s）：指令不合法：%[3]s",
	meter.CodeConcentratorOffline: "集中器 %[1]s 不在线%[4]s（水表 %[2]s）",
	meter.CodeLinkLost:            "集中器 %[1]s 链路中断，水表 %[2]s 未抄到，请重试",
	meter.CodeBusy:                "集中器 %[1]s 总线繁忙，水表 %[2]s 未抄读，请稍后再试",
	meter.CodeExpired:             "集中器 %[1]s 排队超时，水表 %[2]s 的指令未下发，请重试",
	meter.CodeMeterSilent:         "水表 %[2]s 无应答（集中器 %[1]s）",
	meter.CodeMeterRefused:        "水表 %[2]s 拒绝抄读（集中器 %[1]s）：%[3]s",
	meter.CodeBadAnswer:           "水表 %[2]s 的应答无法识别（集中器 %[1]s）：%[3]s",
	meter.CodeCancelled:           "水表 %[2]s 的抄读已取消（集中器 %[1]s）",
	meter.CodeRateLimited:         "点抄过于频繁，水表 %[2]s 未抄读（集中器 %[1]s），请稍后再试",
	meter.CodeTooManyCommands:     "同时点抄过多，水表 %[2]s 未抄读（集中器 %[1]s），请等待前面的应答",
	meter.CodeDraining:            "服务即将停止，水表 %[2]s 未抄读（集中器 %[1]s），请重新连接后再试",
}

// beijing is the one zone of the places where this dialect is spoken; a container's own is usually UTC.
var beijing = time.FixedZone("CST", 8*60*60)

// failureLine is one line of Chinese that names concentrator, meter and reason. since is when the concentrator went
// offline, zero if that is not known.
func failureLine(c meter.ConcentratorID, m meter.Address, why *meter.Error, since time.Time) string {
	line, ok := failureLines[why.Code]
	if !ok {
		line = failureLines[meter.CodeInternal]
	}
	from := ""
	if !since.IsZero() {
		from = "，自 " + since.In(beijing).Format("2006-01-02 15:04:05") + " 起"
	}
	return fmt.Sprintf(line, c, m, oneLine(why.Message), from)
}

func noVolumeLine(c meter.ConcentratorID, m meter.Address) string {
	return fmt.Sprintf("水表 %s 未返回累计流量（集中器 %s）", m, c)
}

// illegalLine names a number that cannot be one.
func illegalLine(what, value string) string {
	const shown = 40
	if r := []rune(value); len(r) > shown {
		value = string(r[:shown]) + "…"
	}
	return fmt.Sprintf("%s %s 不合法：只能用字母、数字、“-”和“_”，最多 32 个字符", what, strconv.Quote(value))
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
