import DeviceModel
import Devices
import Testing

@Suite("VGA damage")
struct VGADamageTests {
  @Test("a mode change damages the whole screen, an unchanged picture nothing")
  func modeChange() throws {
    let machine = try VGAMachine()
    var script = RegisterScript()
    script.set(.text80x25)
    script.setColors()
    script.loadFont(height: 16)
    _ = machine.run(script)
    let first = machine.refresh()
    #expect(first.damage == [Rect(x: 0, y: 0, width: 720, height: 400)])
    #expect(first.scanout.source == .rendered)
    #expect(machine.refresh().damage.isEmpty)
    script.set(.packed320x200)
    _ = machine.run(script)
    #expect(machine.refresh().damage == [Rect(x: 0, y: 0, width: 640, height: 400)])
    #expect(machine.refresh().damage.isEmpty)
  }

  @Test("text damage is the cells that look different")
  func textCells() throws {
    let machine = try VGAMachine()
    var script = RegisterScript()
    script.set(.text80x25)
    script.setColors()
    script.loadFont(height: 16)
    script.write(0xB8000, Array(repeating: 0x07, count: 4000))
    script.crtc(0x0A, 0x20)
    _ = machine.run(script)
    _ = machine.refresh()
    var change = RegisterScript()
    change.write(0xB8000 + 2 * (80 * 3 + 5), [0x41, 0x07, 0x42, 0x07])
    change.write(0xB8000 + 2 * (80 * 3 + 50), [0x43])
    change.write(0xB8000 + 2 * (80 * 9), [0x07, 0x07])
    _ = machine.run(change)
    #expect(
      machine.refresh().damage == [
        Rect(x: 45, y: 48, width: 18, height: 16), Rect(x: 450, y: 48, width: 9, height: 16),
      ])
  }

  @Test("planar and palette damage is the rows, and in them the columns, that differ")
  func rows() throws {
    let machine = try VGAMachine()
    var script = RegisterScript()
    script.set(.planar640x480)
    script.setColors()
    _ = machine.run(script)
    _ = machine.refresh()
    var change = RegisterScript()
    change.write(0xA0000 + 80 * 100 + 10, [0xFF])
    change.write(0xA0000 + 80 * 101 + 12, [0x01])
    change.write(0xA0000 + 80 * 300, [0x00])
    _ = machine.run(change)
    #expect(machine.refresh().damage == [Rect(x: 80, y: 100, width: 24, height: 2)])
  }

  @Test("linear damage is the rows under dirty pages", arguments: [false, true])
  func linear(isWide: Bool) throws {
    let machine = try VGAMachine()
    var script = RegisterScript()
    script.set(.packed320x200)
    script.vbe(1, 1024)
    script.vbe(2, 768)
    script.vbe(3, 32)
    script.vbe(4, 0x41)
    if isWide { script.vbe(6, 2048) }
    _ = machine.run(script)
    let first = machine.refresh()
    let stride = isWide ? 8192 : 4096
    #expect(
      first.scanout
        == Scanout(
          source: .videoMemory, offset: 0, stride: stride, width: 1024, height: 768,
          format: .xrgb8888))
    #expect(first.damage == [Rect(x: 0, y: 0, width: 1024, height: 768)])
    machine.writeVideoMemory(10 * stride + 400, [1])
    machine.writeVideoMemory(11 * stride - 1, [1])
    machine.writeVideoMemory(500 * stride, Array(repeating: 5, count: stride * 2))
    let expected =
      isWide
      ? [Rect(x: 0, y: 10, width: 1024, height: 1), Rect(x: 0, y: 500, width: 1024, height: 2)]
      : [Rect(x: 0, y: 10, width: 1024, height: 1), Rect(x: 0, y: 500, width: 1024, height: 2)]
    #expect(machine.refresh().damage == expected)
    #expect(machine.refresh().damage.isEmpty)
    // Beyond what is shown.
    machine.writeVideoMemory(900 * stride, [1])
    #expect(machine.refresh().damage.isEmpty)
  }

  @Test("a page smaller than a row damages its part of the row")
  func partOfRow() throws {
    let machine = try VGAMachine()
    var script = RegisterScript()
    script.set(.packed320x200)
    script.vbe(1, 1920)
    script.vbe(2, 1080)
    script.vbe(3, 32)
    script.vbe(4, 0x41)
    script.vbe(9, 0)
    _ = machine.run(script)
    _ = machine.refresh()
    machine.writeVideoMemory(7680 + 600, [1])
    // The page of bytes 8192 ..< 12288 lies within row 1, which begins at 7680.
    #expect(machine.refresh().damage == [Rect(x: 128, y: 1, width: 1024, height: 1)])
  }

  @Test("banked writes through the legacy window damage a linear mode")
  func bankedLinear() throws {
    let machine = try VGAMachine()
    var script = RegisterScript()
    script.set(.packed320x200)
    script.vbe(1, 640)
    script.vbe(2, 480)
    script.vbe(3, 32)
    script.vbe(4, 0x41)
    _ = machine.run(script)
    _ = machine.refresh()
    var change = RegisterScript()
    change.vbe(5, 1)
    change.write(0xA0000, [0xAA, 0xBB, 0xCC])
    _ = machine.run(change)
    let update = machine.refresh()
    // 65536 / 2560 is row 25, and the page reaches into row 27.
    #expect(update.damage == [Rect(x: 0, y: 25, width: 640, height: 3)])
    #expect(machine.picture()[384, 25] == 0xCCBBAA)
  }

  @Test("damage covers every change, and painting only what is dirty loses nothing")
  func agreesWithFullPaint() throws {
    for mode in [
      StandardMode.text80x25, .planar640x480, .packed320x200, .cga320x200, .unchained320x240,
    ] {
      let machine = try VGAMachine()
      var script = RegisterScript()
      script.set(mode)
      script.setColors()
      if mode.graphics[6] & 1 == 0 { script.loadFont(height: 16) }
      _ = machine.run(script)
      var before = machine.picture()
      var random = SplitMix(seed: 42)
      for _ in 0..<8 {
        var change = RegisterScript()
        for _ in 0..<random.next(4) {
          let window: UInt32 = mode.graphics[6] & 0x08 != 0 ? 0xB8000 : 0xA0000
          let offset = UInt32(random.next(0x7000))
          change.write(window + offset, RegisterScript.noise(random.next(300), seed: random.next()))
        }
        switch random.next(6) {
        case 0: change.crtc(0x0D, UInt8(random.next(256)))
        case 1: change.dac(from: UInt8(random.next(256)), [1, 2, 3])
        case 2: change.crtc(0x0F, UInt8(random.next(256)))
        default: break
        }
        machine.clock.now += random.next() % 400_000_000
        _ = machine.run(change)
        let update = machine.refresh()
        let after = machine.picture(of: update.scanout)
        #expect(after.changesSince(before, areCoveredBy: update.damage))
        let fresh = try VGAMachine(videoMemory: machine.videoMemory, state: machine.vga.saveState())
        fresh.clock.now = machine.clock.now
        #expect(fresh.picture().difference(from: after) == nil)
        before = after
      }
    }
  }
}

/// Random numbers that are the same in every run.
struct SplitMix {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = (state ^ state >> 30) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
    return mixed ^ mixed >> 31
  }

  mutating func next(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
}
