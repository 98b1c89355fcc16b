import CarrelBase
import Testing

@Suite("The text of options")
struct OptionTextTests {
  @Test(
    "is parted by commas, and two of them are one that belongs to a part",
    arguments: [
      ("", [""]), ("a", ["a"]), ("a,b=c", ["a", "b=c"]), ("a,", ["a", ""]), (",", ["", ""]),
      (",,", [","]), ("a,,b", ["a,b"]), ("a,,,b", ["a,", "b"]), ("a,,,,b", ["a,,b"]),
      (",,a,b,,", [",a", "b,"]), ("a,b=,c", ["a", "b=", "c"]),
      // A comma with an accent is one all the same.
      ("a,\u{301}b", ["a", "\u{301}b"]), ("ä,,ö,ü", ["ä,ö", "ü"]),
    ])
  func parts(text: String, parts: [String]) {
    #expect(OptionText.parts(of: text) == parts)
  }

  @Test(
    "has any text in it as one part",
    arguments: ["", "a", ",", ",,", "a,b", ",a,,b,", "/state/a,b/disk.raw", ",\u{301}"])
  func escaping(text: String) {
    #expect(OptionText.parts(of: OptionText.escaped(text)) == [text])
    #expect(OptionText.parts(of: "\(OptionText.escaped(text)),y=z") == [text, "y=z"])
    #expect(
      OptionText.parts(of: "x,key=\(OptionText.escaped(text)),y=z")
        == ["x", "key=\(text)", "y=z"])
  }
}
