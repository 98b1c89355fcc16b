import TestSupport
import Testing

/// Each script runs on QEMU's standard VGA and on ours; every pixel and every value
/// read must agree.
@Suite("Modes against QEMU", .needsQEMU, .serialized)
struct ModesAgainstQEMUTests {
  private func expectSame(_ script: RegisterScript) throws {
    let peer = try QEMUPeer()
    let machine = try VGAMachine()
    let theirs = try peer.run(script)
    let ours = machine.run(script)
    #expect(ours == theirs)
    var expected = try peer.picture()
    var picture = machine.picture()
    if machine.scanout?.format == .xrgb1555 {
      // Five bits to eight: QEMU leaves the low ones empty, at 15 bits only.
      expected = expected.reduced(to: 0xF8F8F8)
      picture = picture.reduced(to: 0xF8F8F8)
    }
    #expect(!expected.isUniform, "the script shows nothing")
    #expect(picture.difference(from: expected) == nil)
  }

  @Test("text modes with their fonts, colours and cursor", arguments: TextCase.all)
  func text(_ example: TextCase) throws { try expectSame(example.script) }

  @Test("graphics modes of the VGA", arguments: GraphicsCase.all)
  func graphics(_ example: GraphicsCase) throws { try expectSame(example.script) }

  @Test("extended modes of the Bochs VBE", arguments: ExtendedCase.all)
  func extended(_ example: ExtendedCase) throws { try expectSame(example.script) }
}

/// A script with a name that test reports show.
protocol ScriptCase: Sendable, CustomTestStringConvertible {
  var name: String { get }
}

extension ScriptCase {
  var testDescription: String { name }
}

struct TextCase: ScriptCase {
  let name: String
  let change: @Sendable (inout RegisterScript) -> Void
  var mode = StandardMode.text80x25
  var fontHeight = 16

  var script: RegisterScript {
    var script = RegisterScript()
    script.set(mode)
    script.setColors()
    script.loadFont(height: fontHeight)
    // Blinking off: attribute bit 7 is a background colour, which QEMU assumes.
    script.attribute(0x10, mode.attribute[0x10] & ~0x08)
    let cells = (0..<4000).flatMap { [UInt8(truncatingIfNeeded: $0), UInt8($0 / 16 & 0xFF)] }
    script.write(0xB8000, cells)
    change(&script)
    return script
  }

  static let all: [TextCase] = [
    TextCase(name: "80x25, 9 dots, every character and attribute") { _ in },
    TextCase(name: "80x25 with a block cursor") {
      $0.crtc(0x0A, 0x02)
      $0.crtc(0x0B, 0x0C)
      $0.crtc(0x0E, 0x01)
      $0.crtc(0x0F, 0x23)
    },
    TextCase(name: "80x25 with the cursor off") {
      $0.crtc(0x0A, 0x2D)
      $0.crtc(0x0F, 0x05)
    },
    TextCase(name: "80x25, 8 dots") { $0.sequencer(1, 0x01) },
    TextCase(name: "80x25, ninth dot always background") { $0.attribute(0x10, 0x00) },
    TextCase(name: "80x50 with an 8-line font", change: { $0.crtc(0x09, 0x47) }, fontHeight: 8),
    TextCase(
      name: "80x12 with a 32-line font",
      change: { script in
        script.crtc(0x09, 0x5F)
        script.crtc(0x12, 0x7F)
      }, fontHeight: 32),
    TextCase(
      name: "40x25, doubled dots", change: { _ in }, mode: .text40x25),
    TextCase(name: "132x25") {
      $0.sequencer(1, 0x01)
      $0.crtc(0x11, 0x0E)
      $0.crtc(0x01, 131)
      $0.crtc(0x13, 66)
    },
    TextCase(name: "two fonts, chosen by attribute bit 3") {
      $0.loadFont(map: 5, height: 16, seed: 0xA5)
      // Map A is 5, map B is 0.
      $0.sequencer(3, 0x24)
    },
    TextCase(name: "scrolled by start address, with the cursor") {
      $0.crtc(0x0C, 0x01)
      $0.crtc(0x0D, 0x47)
      $0.crtc(0x0E, 0x02)
      $0.crtc(0x0F, 0x00)
    },
    TextCase(name: "split by line compare") {
      $0.crtc(0x0D, 0xA0)
      $0.crtc(0x11, 0x0E)
      $0.crtc(0x07, 0x0F)
      $0.crtc(0x09, 0x0F)
      $0.crtc(0x18, 0xEF)
    },
    TextCase(name: "colour select replaces palette bits") {
      $0.attribute(0x10, 0x84)
      $0.attribute(0x14, 0x0B)
    },
    TextCase(name: "colour select adds palette bits") { $0.attribute(0x14, 0x0C) },
    TextCase(
      name: "monochrome at B0000h",
      change: { script in
        script.graphics(6, 0x0A)
        script.write(0xB0000, RegisterScript.noise(4000, seed: 4).map { $0 & 0x7E })
      }, mode: .monochromeText),
    TextCase(name: "a second refresh after a few changes") {
      $0.steps.append(.refresh)
      $0.write(0xB8000 + 500, [0x41, 0x4E, 0x42, 0x17])
      $0.crtc(0x0F, 0x50)
      $0.dac(from: 1, [63, 0, 63])
    },
  ]
}
