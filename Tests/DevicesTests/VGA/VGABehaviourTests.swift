import DeviceModel
import Devices
import Snapshot
import Testing

/// What hardware does where QEMU 7.2 simplifies: expectations made by hand.
@Suite("VGA behaviour")
struct VGABehaviourTests {
  private func textMachine(
    _ mode: StandardMode = .text80x25, cells: [UInt8]? = nil,
    _ change: (inout RegisterScript) -> Void = { _ in }
  ) throws -> VGAMachine {
    let machine = try VGAMachine()
    var script = RegisterScript()
    script.set(mode)
    script.setColors()
    script.loadFont(height: 16)
    script.crtc(0x0A, 0x20)
    let noise = RegisterScript.noise(4000).enumerated().map { $0 & 1 == 1 ? $1 & 0x7F : $1 }
    script.write(0xB8000, cells ?? noise)
    change(&script)
    _ = machine.run(script)
    return machine
  }

  private func picture(_ script: RegisterScript) throws -> Picture {
    let machine = try VGAMachine()
    _ = machine.run(script)
    return machine.picture()
  }

  @Test("a cursor blinks every 16 frames, and only its cell is damaged")
  func cursorBlinks() throws {
    let machine = try textMachine {
      $0.crtc(0x0A, 0x0E)
      $0.crtc(0x0B, 0x0F)
      $0.crtc(0x0F, 82)
    }
    let shown = machine.picture()
    machine.clock.now = 266_666_667
    let update = machine.refresh()
    let hidden = machine.picture()
    #expect(update.damage == [Rect(x: 18, y: 16, width: 9, height: 16)])
    let changed = shown.pixels.indices.filter { shown.pixels[$0] != hidden.pixels[$0] }
    #expect(!changed.isEmpty)
    #expect(changed.allSatisfy { (30...31).contains($0 / 720) && (18..<27).contains($0 % 720) })
    machine.clock.now *= 2
    #expect(machine.picture() == shown)
  }

  @Test("characters with attribute bit 7 blink every 32 frames, over one of 8 backgrounds")
  func textBlinks() throws {
    var cells = (0..<2000).flatMap { _ in [UInt8](arrayLiteral: 0x20, 0x07) }
    cells[0] = 0x41
    cells[1] = 0x9E
    let machine = try textMachine(cells: cells)
    let shown = machine.picture()
    machine.clock.now = 533_333_334
    let hidden = machine.picture()
    let cell = (0..<16 * 9).map { (x: $0 % 9, y: $0 / 9) }
    #expect(Set(cell.map { shown[$0.x, $0.y] }).count == 2)
    #expect(Set(cell.map { hidden[$0.x, $0.y] }).count == 1)
    #expect(hidden[0, 0] == machine.color(register: 1))
    var script = RegisterScript()
    script.attribute(0x10, 0x04)
    _ = machine.run(script)
    #expect(machine.picture()[8, 0] == machine.color(register: 9))
  }

  @Test("monochrome emulation underlines where attribute and location say")
  func underline() throws {
    var cells = [UInt8](repeating: 0, count: 4000)
    cells[1] = 0x01
    cells[3] = 0x07
    let machine = try VGAMachine()
    var script = RegisterScript()
    script.set(.monochromeText)
    script.setColors()
    script.indexed(0x3B4, 0x0A, 0x20)
    script.indexed(0x3B4, 0x14, 0x0C)
    script.write(0xB0000, cells)
    _ = machine.run(script)
    let picture = machine.picture()
    for y in 0..<16 {
      let isLine = y == 12
      #expect((picture[4, y] != picture[4, 0]) == isLine)
      #expect(picture[13, y] == picture[13, 0])
    }
  }

  @Test("text panning moves the picture left by dots and brings in a 81st column", arguments: 0..<9)
  func textPanning(value: UInt8) throws {
    let straight = try textMachine { $0.crtc(0x13, 41) }.picture()
    let byNextCell = try textMachine {
      $0.crtc(0x13, 41)
      $0.crtc(0x0D, 1)
    }.picture()
    let panned = try textMachine {
      $0.crtc(0x13, 41)
      $0.attribute(0x13, value)
    }.picture()
    let dots = value == 8 ? 0 : Int(value) + 1
    for y in [0, 7, 200, 399] {
      for x in 0..<720 {
        let expected =
          x + dots < 720 ? straight[x + dots, y] : byNextCell[x + dots - 9, y]
        #expect(panned[x, y] == expected)
      }
    }
  }

  @Test("preset row scan scrolls text smoothly")
  func presetRowScan() throws {
    let straight = try textMachine().picture()
    let scrolled = try textMachine { $0.crtc(0x08, 0x05) }.picture()
    #expect(scrolled.height == straight.height)
    for y in 0..<390 {
      #expect((0..<720).allSatisfy { scrolled[$0, y] == straight[$0, y + 5] })
    }
  }

  @Test("double scan shows each line of text twice")
  func textDoubleScan() throws {
    let single = try textMachine().picture()
    let double = try textMachine { $0.crtc(0x09, 0xCF) }.picture()
    #expect(double.height == 400)
    for y in 0..<400 { #expect((0..<720).allSatisfy { double[$0, y] == single[$0, y / 2] }) }
  }

  @Test("a split in the middle of a character row starts the first row anew")
  func textSplit() throws {
    let whole = try textMachine().picture()
    let split = try textMachine {
      $0.crtc(0x0C, 0x00)
      $0.crtc(0x0D, 160)
      $0.crtc(0x11, 0x0E)
      $0.crtc(0x07, 0x0F)
      $0.crtc(0x09, 0x0F)
      $0.crtc(0x18, 0x03)
    }.picture()
    // Line compare is 103h with its two high bits: overflow bit 4 is cleared.
    let last = 0x003
    for y in 0..<400 {
      let source = y <= last ? y + 32 : y - last - 1
      #expect((0..<720).allSatisfy { split[$0, y] == whole[$0, source] })
    }
  }

  @Test("planar panning moves by single pixels", arguments: [1, 5, 7])
  func planarPanning(value: UInt8) throws {
    var script = RegisterScript()
    script.set(.planar640x480)
    script.setColors()
    script.fillPlanes(38400 + 80)
    let straight = try picture(script)
    var next = script
    next.crtc(0x0D, 1)
    let shifted = try picture(next)
    script.attribute(0x13, value)
    let panned = try picture(script)
    let dots = Int(value)
    for y in [0, 100, 479] {
      for x in 0..<640 {
        let expected = x + dots < 640 ? straight[x + dots, y] : shifted[x + dots - 8, y]
        #expect(panned[x, y] == expected)
      }
    }
  }

  @Test("panning can end at the split, byte panning moves by characters")
  func panningAndSplit() throws {
    var script = RegisterScript()
    script.set(.planar640x480)
    script.setColors()
    script.fillPlanes(60000)
    let plain = try picture(script)
    script.crtc(0x07, 0x2E)
    script.crtc(0x09, 0x00)
    script.crtc(0x18, 0x31)
    script.crtc(0x08, 0x40)
    script.attribute(0x13, 3)
    let panned = try picture(script)
    script.attribute(0x10, 0x21)
    let stopped = try picture(script)
    for x in 0..<600 {
      #expect(panned[x, 0] == plain[x + 19, 0])
      #expect(panned[x, 50] == plain[x + 19, 0])
      #expect(stopped[x, 10] == plain[x + 19, 10])
      #expect(stopped[x, 50] == plain[x, 0])
      #expect(stopped[x, 51] == plain[x, 1])
    }
  }

  @Test("the PEL mask thins out palette indices")
  func pelMask() throws {
    var script = RegisterScript()
    script.set(.packed320x200)
    script.setColors()
    script.write(0xA0000, (0..<320).map { UInt8(truncatingIfNeeded: $0) })
    let plain = try picture(script)
    script.out8(0x3C6, 0x0F)
    let masked = try picture(script)
    for x in 0..<320 { #expect(masked[x * 2, 0] == plain[(x & 0x0F) * 2, 0]) }
  }

  @Test("the screen off bit blanks and keeps the size")
  func screenOff() throws {
    let machine = try textMachine()
    let shown = machine.picture()
    var script = RegisterScript()
    script.sequencer(1, 0x20)
    _ = machine.run(script)
    let blank = machine.picture()
    #expect(blank.width == shown.width && blank.height == shown.height)
    #expect(blank.pixels.allSatisfy { $0 == 0 })
    script.sequencer(1, 0x00)
    _ = machine.run(script)
    #expect(machine.picture() == shown)
  }

  @Test("input status 1 shows one retrace a frame and resets the flip-flop")
  func retrace() throws {
    let machine = try textMachine()
    var retraces = 0
    var wasRetrace = true
    var displayed = 0
    let step: UInt64 = 10_000
    for _ in 0..<100_000 {
      machine.clock.now += step
      let status = machine.in8(0x3DA)
      let isRetrace = status & 0x08 != 0
      #expect(!isRetrace || status & 0x01 != 0)
      if isRetrace && !wasRetrace { retraces += 1 }
      wasRetrace = isRetrace
      if status & 1 == 0 { displayed += 1 }
    }
    // 28.322 MHz / (900 × 449) is 70.08 Hz, for one second.
    #expect((69...71).contains(retraces))
    #expect((60_000..<80_000).contains(displayed))
    var script = RegisterScript()
    script.out8(0x3C0, 0x11)
    _ = machine.run(script)
    #expect(machine.in8(0x3C0) == 0)
    _ = machine.in8(0x3DA)
    #expect(machine.in8(0x3C0) == 0x11)
  }

  @Test("CRTC registers 0 to 7 can be protected, but for line compare bit 8")
  func protection() throws {
    let machine = try VGAMachine()
    var script = RegisterScript()
    script.set(.text80x25)
    script.crtc(0x11, 0x8E)
    script.crtc(0x01, 0x12)
    script.crtc(0x07, 0x00)
    script.steps += [.out8(0x3D4, 1), .in8(0x3D5), .out8(0x3D4, 7), .in8(0x3D5)]
    #expect(machine.run(script) == [0x4F, 0x0F])
  }
}

extension VGAMachine {
  func in8(_ port: UInt16) -> UInt64 { run(RegisterScript(steps: [.in8(port)]))[0] }

  /// The colour that attribute register `register` leads to in the colours of
  /// `setColors`, read back through the ports.
  func color(register: UInt8) -> UInt32 {
    var script = RegisterScript()
    script.steps += [.touch(0x3DA), .out8(0x3C0, register | 0x20), .in8(0x3C1), .touch(0x3DA)]
    let index = UInt8(run(script)[0])
    let levels = run(
      RegisterScript(steps: [.out8(0x3C7, index)] + Array(repeating: .in8(0x3C9), count: 3)))
    return levels.reduce(0) { $0 << 8 | UInt32($1 << 2 | ($1 & 1) * 3) }
  }
}
