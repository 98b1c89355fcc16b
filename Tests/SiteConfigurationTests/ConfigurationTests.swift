import Foundation
import SiteConfiguration
import TestSupport
import Testing
import Yams

@Suite("The configuration file")
struct ConfigurationTests {
  static let path = #filePath.components(separatedBy: "/Tests/")[0] + "/config/carrel.yaml"

  private func parse(_ yaml: String) throws(ConfigurationError) -> CarrelConfiguration {
    try CarrelConfiguration(yaml: yaml, file: "carrel.yaml")
  }

  private func refusal(_ yaml: String) -> ConfigurationError? {
    #expect(throws: ConfigurationError.self) { try parse(yaml) }
  }

  @Test("config/carrel.yaml is the default configuration")
  func defaults() throws {
    #expect(try CarrelConfiguration(contentsOf: Self.path) == CarrelConfiguration())
  }

  @Test("config/carrel.yaml has every key that there is, with a comment above its section")
  func complete() throws {
    let text = try String(contentsOfFile: Self.path, encoding: .utf8)
    var keys: [String] = []
    func collect(_ node: Node, _ prefix: String) {
      guard case .mapping(let mapping) = node else {
        keys.append(String(prefix.dropLast()))
        return
      }
      for (key, value) in mapping { collect(value, prefix + (key.string ?? "") + ".") }
    }
    collect(try #require(try Yams.compose(yaml: text)), "")
    #expect(keys.sorted() == CarrelConfiguration.keys.sorted())
  }

  /// A value other than the default for every key, and one that is wrong.
  static let samples: [String: (good: String, bad: String?)] = [
    "state_directory": ("/srv/carrel", "relative/path"),
    "runtime_directory": ("/srv/run", "relative"),
    "gateway.listen": ("[\"127.0.0.1:5901\", \"[::1]:5901\"]", "[\"nowhere\"]"),
    "gateway.web": ("[]", "8443"),
    "gateway.web_tls": ("false", "perhaps"),
    "gateway.certificate": ("/etc/c.pem", "c.pem"),
    "gateway.key": ("/etc/k.pem", "k.pem"),
    "gateway.tickets": ("false", "1"),
    "gateway.cleartext_sessions": ("true", "[]"),
    "gateway.passwordless_user": ("kiosk", "[a]"),
    "gateway.novnc_directory": ("/opt/novnc", "novnc"),
    "gateway.handshake_seconds": ("5", "0"),
    "gateway.login_seconds": ("60", "soon"),
    "gateway.stall_seconds": ("1", "3"),
    "gateway.connections_before_login": ("10", "0"),
    "gateway.connections_before_login_per_address": ("3", "0"),
    "gateway.viewers": ("5", "0"),
    "logins.failures": ("3", "0"),
    "logins.window_seconds": ("10", "0"),
    "logins.lockout_seconds": ("20", "86401"),
    "logins.ticket_seconds": ("30", "0"),
    "programs.vmm": ("/opt/vmm", "\"\""),
    "programs.display": ("/opt/display", "\"\""),
    "desktops.stop_at_exit": ("true", "later"),
    "desktops.boots_at_once": ("12", "-1"),
    "memory.overcommit_ratio": ("2.25", "0"),
    "memory.reserve_mib": ("2048", "-1"),
    "memory.watermark_percent": ("20", "91"),
    "memory.critical_percent": ("9", "half"),
    "log.level": ("debug", "loud"),
  ]

  /// `gateway.listen: x` as YAML, its sections above it.
  private func yaml(_ key: String, _ value: String) -> String {
    let parts = key.split(separator: ".")
    return parts.enumerated().map { index, part in
      String(repeating: "  ", count: index) + part + ":"
    }.joined(separator: "\n") + " " + value + "\n"
  }

  @Test("every key does something", arguments: CarrelConfiguration.keys)
  func everyKey(key: String) throws {
    let sample = try #require(Self.samples[key], "no sample for \(key)")
    var text = yaml(key, sample.good)
    // These two are only good together.
    if key == "gateway.certificate" { text += "  key: /etc/k.pem\n" }
    if key == "gateway.key" { text += "  certificate: /etc/c.pem\n" }
    #expect(try parse(text) != CarrelConfiguration())
  }

  @Test(
    "every key refuses what makes no sense, and says where", arguments: CarrelConfiguration.keys)
  func everyKeyBad(key: String) throws {
    let sample = try #require(Self.samples[key])
    guard let bad = sample.bad else { return }
    let error = refusal(yaml(key, bad))
    #expect(error?.kind == .invalidValue)
    #expect(error?.line == key.split(separator: ".").count)
    #expect(error?.context.contains("'\(key)' must be") == true)
  }

  @Test(
    "an unknown key is named with its line and what was probably meant",
    arguments: [
      ("gatway:\n  listen: []\n", 1, "gateway"),
      ("# first\ngateway:\n  listne: []\n", 3, "gateway.listen"),
      ("listen: []\n", 1, "gateway.listen"),
      ("gateway:\n  web_tsl: true\n", 2, "gateway.web_tls"),
      ("statedirectory: /x\n", 1, "state_directory"),
      ("log:\n  levle: info\n", 2, "log.level"),
    ])
  func unknown(yaml: String, line: Int, suggestion: String) {
    let error = refusal(yaml)
    #expect(error?.kind == .unknownKey)
    #expect(error?.line == line)
    #expect(error?.suggestion == suggestion)
    #expect(error?.description.hasPrefix("carrel.yaml:\(line): ") == true)
  }

  @Test("a key that resembles none is refused without a guess")
  func noGuess() {
    let error = refusal("zzzzzzzzzzzz: 1\n")
    #expect(error?.kind == .unknownKey)
    #expect(error?.suggestion == nil)
  }

  @Test(
    "what is not YAML is refused with the line",
    arguments: ["gateway: [\n", "a: b: c\n", "\t- x\n"])
  func syntax(yaml: String) {
    let error = refusal(yaml)
    #expect(error?.kind == .syntax)
    #expect(error?.line != nil)
  }

  @Test("a key given twice is refused")
  func twice() {
    #expect(refusal("log:\n  level: info\nlog:\n  level: debug\n")?.kind == .syntax)
  }

  @Test("a section that holds no keys is refused")
  func section() {
    #expect(refusal("gateway: 5900\n")?.kind == .invalidValue)
    #expect(refusal("- gateway\n")?.kind == .invalidValue)
  }

  @Test("a certificate without its key is refused")
  func half() {
    #expect(refusal("gateway:\n  certificate: /c.pem\n")?.context.contains("gateway.key") == true)
  }

  @Test("a critical share of memory above the watermark is refused; whole ratios are numbers, too")
  func memory() throws {
    let error = refusal("memory:\n  critical_percent: 10\n")
    #expect(error?.context.contains("less than 'memory.watermark_percent', 10") == true)
    #expect(try parse("memory:\n  overcommit_ratio: 3\n").memory.overcommitRatio == 3)
  }

  @Test("an empty file is the default configuration", arguments: ["", "# nothing\n", "---\n"])
  func empty(yaml: String) throws {
    #expect(try parse(yaml) == CarrelConfiguration())
  }

  @Test("a missing file is an error with a remedy")
  func missing() {
    let error = #expect(throws: ConfigurationError.self) {
      try CarrelConfiguration(contentsOf: "/nowhere/carrel.yaml")
    }
    #expect(error?.kind == .unreadable)
    #expect(error?.context.contains("/nowhere/carrel.yaml") == true)
  }

  @Test(
    "addresses are host and port",
    arguments: [
      ("0.0.0.0:5900", "0.0.0.0", 5900), ("[::1]:80", "::1", 80), ("localhost:0", "localhost", 0),
    ])
  func addresses(text: String, host: String, port: Int) {
    #expect(CarrelConfiguration.Endpoint(text) == .init(host: host, port: port))
    #expect(CarrelConfiguration.Endpoint(text)?.description == text)
  }

  @Test(
    "what is no address is refused",
    arguments: ["", "5900", ":5900", "a:b", "::1:5900", "host:65536", "host:-1", "a b:1"])
  func noAddress(text: String) {
    #expect(CarrelConfiguration.Endpoint(text) == nil)
  }
}
