import Display
import Testing
import VNCServer

@Suite("Commands to a display process")
struct DisplayCommandTests {
  static let commands: [(String, DisplayCommand?)] = [
    ("attach /run/carrel/a b", .attach(path: "/run/carrel/a b")),
    ("layout en-us", .layout(.enUS)),
    ("layout de", .layout(.german)),
    ("layout fr", .layout(.french)),
    ("layout dvorak", nil),
    ("layout", nil),
    ("layout de ", nil),
    ("detach", .detach),
    ("status 40 Starting it", .status("Starting it", percent: 40)),
    ("status - One moment", .status("One moment", percent: nil)),
    ("status x", .status("", percent: nil)),
    ("name reading room 1", .name("reading room 1")),
    ("end Good night.", .end("Good night.")),
    ("explode now", nil),
    ("", nil),
  ]

  @Test("each packet is understood or left alone", arguments: commands)
  func packets(text: String, command: DisplayCommand?) {
    #expect(DisplayCommand(packet: Array(text.utf8)) == command)
  }

  @Test("bytes that are no text are no command")
  func noText() {
    #expect(DisplayCommand(packet: [0xFF, 0x20, 0xC0]) == nil)
  }
}
