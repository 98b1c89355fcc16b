import QMP
import Testing

@Suite("JSON")
struct JSONTests {
  func parse(_ text: String) throws -> JSON { try JSON(parsing: Array(text.utf8)) }

  static let samples: [(String, JSON)] = [
    ("null", .null), (" true ", true), ("[]", []), ("{}", [:]), ("-0", 0),
    ("9223372036854775807", .integer(.max)), ("-9223372036854775808", .integer(.min)),
    ("1.5e3", .number(1500)), ("18446744073709551616", .number(18_446_744_073_709_551_616)),
    (#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00""#, "a\"\\/\u{8}\u{c}\n\r\té😀"),
    (#"{"a":[1,{"b":null}],"c":"ü"}"#, ["a": [1, ["b": .null]], "c": "ü"]),
  ]

  @Test("values are read as they are written", arguments: samples)
  func values(text: String, value: JSON) throws {
    #expect(try parse(text) == value)
    #expect(try JSON(parsing: value.encoded) == value)
  }

  @Test(
    "what is not JSON is refused",
    arguments: [
      "", " ", "{", "[1,]", "{\"a\":}", "{\"a\" 1}", "{a:1}", "[1 2]", "tru", "nulll", "+1", "01",
      "1.", ".5", "--1", "1e", "1e999", "\"", "\"\\x\"", "\"\\u12\"", "\"\\ud800\"",
      "\"\\ud800\\u0041\"", "\"\\udc00\"", "\"a\nb\"", "{\"a\":1,\"a\":2}", "1 2", "{}}", "'a'",
    ])
  func refusals(text: String) {
    #expect(throws: JSONError.self) { try parse(text) }
  }

  @Test("invalid UTF-8 in a string is refused")
  func encoding() {
    #expect(throws: JSONError.self) { try JSON(parsing: [0x22, 0xC3, 0x28, 0x22]) }
  }

  @Test("nesting is bounded")
  func depth() throws {
    let deep = String(repeating: "[", count: 64) + String(repeating: "]", count: 64)
    _ = try parse(deep)
    #expect(throws: JSONError.self) { try parse("[" + deep + "]") }
    #expect(throws: JSONError.self) { try parse(String(repeating: "[", count: 60_000)) }
  }

  @Test("text is encoded on one line with control characters escaped")
  func encodingText() {
    let value: JSON = ["a": "x\u{1}\n\"\\", "b": [true, .null, 3]]
    #expect(
      String(decoding: value.encoded, as: UTF8.self)
        == #"{"a": "x\u0001\n\"\\", "b": [true, null, 3]}"#)
  }

  @Test("the splitter finds objects however the stream is cut", arguments: 1...7)
  func splitting(size: Int) {
    let stream = Array(
      "\u{7f}garbage {\n {\"a\":\"}{\\\"\"}{\"b\":[{}]}\r\n  {\"c\":\n1} x\n{}".utf8)
    var splitter = JSONSplitter()
    var pieces: [JSONSplitter.Piece] = []
    for start in stride(from: 0, to: stream.count, by: size) {
      pieces += splitter.receive(stream[start..<min(start + size, stream.count)])
    }
    func object(_ text: String) -> JSONSplitter.Piece { .object(Array(text.utf8)) }
    #expect(
      pieces == [
        .garbage, object("{\"a\":\"}{\\\"\"}"), object("{\"b\":[{}]}"), object("{\"c\":\n1}"),
        .garbage, object("{}"),
      ])
  }

  @Test("an endless object is dropped and the next line is read again")
  func bounded() {
    var splitter = JSONSplitter(limit: 100)
    var pieces = splitter.receive(Array("{\"a\":\"".utf8))
    pieces += splitter.receive([UInt8](repeating: 0x61, count: 100_000))
    pieces += splitter.receive(Array("\n{}".utf8))
    #expect(pieces == [.tooLong, .object(Array("{}".utf8))])
  }
}
