import DeviceModel
import Devices
import Testing

@Suite("VGA against hostile guests")
struct VGAFuzzTests {
  @Test("random programs never leave video memory or surface", arguments: 0..<8)
  func randomPrograms(seed: Int) {
    var random = SplitMix(seed: UInt64(seed))
    // Most programs switch the screen on, or they would test black pictures.
    let program = RegisterScript.noise(1500, seed: random.next())
    let outcome = VGAFuzzing.run([0, 0x10, 0x20] + program + [0, 0x10, 0x20])
    #expect(outcome.isSound)
    #expect(outcome.pictures > 0)
  }

  @Test("registers at their extremes give a picture that fits", arguments: Extreme.all)
  func extremes(_ extreme: Extreme) throws {
    let machine = try VGAMachine(size: 1 << 20)
    var script = RegisterScript()
    script.set(extreme.mode)
    for (index, value) in extreme.crtc { script.crtc(index, value) }
    for (index, value) in extreme.vbe { script.vbe(index, value) }
    script.attribute(0x13, 0x0F)
    _ = machine.run(script)
    let scanout = machine.refresh().scanout
    let source = scanout.source == .rendered ? machine.surface : machine.videoMemory
    #expect(scanout.width > 0 && scanout.height > 0)
    #expect(scanout.offset + scanout.stride * scanout.height <= source.bytes.count)
    _ = machine.picture()
  }
}

struct Extreme: ScriptCase {
  let name: String
  var mode = StandardMode.text80x25
  var crtc: [(UInt8, UInt8)] = []
  var vbe: [(UInt16, UInt16)] = []

  private static let largest: [(UInt8, UInt8)] = [
    (0x11, 0x00), (0x01, 0xFF), (0x07, 0xFF), (0x12, 0xFF), (0x13, 0xFF), (0x0C, 0xFF),
    (0x0D, 0xFF), (0x08, 0x7F), (0x18, 0x00),
  ]

  static let all: [Extreme] =
    [
      Extreme(name: "the widest and highest text, one line a row", crtc: largest + [(0x09, 0x00)]),
      Extreme(name: "the widest text in doubled dots", mode: .text40x25, crtc: largest),
      Extreme(name: "the largest planar screen", mode: .planar320x200, crtc: largest),
      Extreme(name: "the largest palette screen", mode: .packed320x200, crtc: largest),
      Extreme(
        name: "the smallest screen",
        crtc: [(0x11, 0), (0x01, 0), (0x07, 0), (0x12, 0), (0x13, 0), (0x09, 0x9F)]),
      Extreme(
        name: "the smallest graphics screen", mode: .planar640x480,
        crtc: [(0x11, 0), (0x01, 0), (0x07, 0), (0x12, 0), (0x13, 0), (0x09, 0x9F)]),
    ]
    + [4, 8, 15, 16, 24, 32, 7].flatMap { depth in
      [
        Extreme(
          name: "the largest extended mode at \(depth) bits",
          vbe: [
            (1, 0xFFFF), (2, 0xFFFF), (3, depth), (4, 1), (6, 0xFFFF), (8, 0xFFFF), (9, 0xFFFF),
          ]),
        Extreme(
          name: "an extended mode of no size at \(depth) bits",
          vbe: [(1, 0), (2, 0), (3, depth), (4, 1), (6, 0), (5, 0xFFFF)]),
      ]
    }
}
