import Testing

/// Scripts for the VGA's own graphics modes.
struct GraphicsCase: ScriptCase {
  let name: String
  let mode: StandardMode
  let change: @Sendable (inout RegisterScript) -> Void

  var script: RegisterScript {
    var script = RegisterScript()
    script.set(mode)
    script.setColors()
    change(&script)
    return script
  }

  static let all: [GraphicsCase] = [
    GraphicsCase(name: "640x480, 16 colours, plane by plane", mode: .planar640x480) {
      $0.fillPlanes(38400)
    },
    GraphicsCase(name: "write modes 0 to 3, with latches", mode: .planar640x480) {
      $0.fillPlanes(38400)
      $0.drawWithEveryWriteMode()
    },
    GraphicsCase(name: "random writes with random registers", mode: .planar640x480) {
      $0.fillPlanes(38400)
      $0.drawAtRandom(count: 3000)
    },
    GraphicsCase(name: "planes switched off by colour plane enable", mode: .planar640x480) {
      $0.fillPlanes(38400)
      $0.attribute(0x12, 0x05)
    },
    GraphicsCase(name: "start address and a wide virtual screen", mode: .planar640x480) {
      $0.crtc(0x13, 50)
      $0.fillPlanes(65536)
      $0.crtc(0x0C, 0x12)
      $0.crtc(0x0D, 0x35)
    },
    GraphicsCase(name: "split by line compare", mode: .planar640x480) {
      $0.fillPlanes(65536)
      $0.crtc(0x0C, 0x20)
      $0.crtc(0x07, 0x2E)
      $0.crtc(0x09, 0x00)
      $0.crtc(0x18, 0x63)
    },
    GraphicsCase(name: "320x200, 16 colours, doubled dots and lines", mode: .planar320x200) {
      $0.fillPlanes(8000)
    },
    GraphicsCase(name: "mode 13h", mode: .packed320x200) {
      $0.write(0xA0000, RegisterScript.noise(64000))
    },
    GraphicsCase(name: "mode 13h split by line compare", mode: .packed320x200) {
      $0.write(0xA0000, RegisterScript.noise(65536))
      $0.crtc(0x0C, 0x10)
      $0.crtc(0x11, 0x0E)
      $0.crtc(0x07, 0x0F)
      $0.crtc(0x09, 0x01)
      $0.crtc(0x18, 0xC7)
    },
    GraphicsCase(name: "mode 13h with a palette change after a refresh", mode: .packed320x200) {
      $0.write(0xA0000, RegisterScript.noise(64000))
      $0.steps.append(.refresh)
      $0.dac(from: 17, [1, 2, 3, 60, 61, 62])
      $0.write(0xA1234, [1, 2, 3, 4, 5])
    },
    GraphicsCase(name: "mode X, 320x240", mode: .unchained320x240) {
      $0.fillPlanes(19200)
    },
    GraphicsCase(name: "mode X on its second page", mode: .unchained320x240) {
      $0.fillPlanes(38400)
      $0.crtc(0x0C, 0x4B)
      $0.crtc(0x0D, 0x00)
    },
    GraphicsCase(name: "CGA 320x200, 4 colours", mode: .cga320x200) {
      $0.write(0xB8000, RegisterScript.noise(16384, seed: 3))
    },
    GraphicsCase(name: "CGA 640x200, 2 colours", mode: .cga640x200) {
      $0.write(0xB8000, RegisterScript.noise(16384, seed: 3))
    },
    GraphicsCase(name: "reads in both read modes", mode: .planar640x480) {
      $0.fillPlanes(4096)
      for plane in 0..<4 {
        $0.graphics(4, UInt8(plane))
        $0.steps.append(.read(0xA0100, 16))
      }
      $0.graphics(5, 0x08)
      $0.graphics(2, 0x05)
      for care: UInt8 in [0x0F, 0x07, 0x01, 0x00] {
        $0.graphics(7, care)
        $0.steps.append(.read(0xA0200, 16))
      }
    },
    GraphicsCase(name: "register files read back", mode: .planar640x480) {
      $0.fillPlanes(38400)
      $0.readEveryRegister()
    },
    GraphicsCase(name: "blanked after it was shown", mode: .planar640x480) {
      $0.fillPlanes(38400)
      $0.steps.append(.refresh)
      $0.steps.append(.touch(0x3DA))
      $0.out8(0x3C0, 0x00)
      $0.steps.append(.refresh)
      $0.out8(0x3DA, 0x00)
      $0.steps.append(.touch(0x3DA))
      $0.out8(0x3C0, 0x20)
    },
  ]
}

extension RegisterScript {
  /// Different noise in each of the four planes.
  mutating func fillPlanes(_ count: Int) {
    for plane in 0..<4 {
      sequencer(2, 1 << UInt8(plane))
      write(0xA0000, Self.noise(min(count, 65536), seed: UInt64(plane + 7)))
    }
    sequencer(2, 0x0F)
  }

  mutating func drawWithEveryWriteMode() {
    for function: UInt8 in 0..<4 {
      for writeMode: UInt8 in 0..<4 {
        let row = UInt32(function * 4 + writeMode)
        let address = 0xA0000 + row * 80 * 20
        graphics(0, 0x0A)
        graphics(1, function == 1 ? 0x00 : 0x03)
        graphics(3, function << 3 | (row & 7 == 5 ? 3 : 0))
        graphics(5, writeMode)
        graphics(8, row % 3 == 0 ? 0x3C : 0xFF)
        sequencer(2, row % 5 == 0 ? 0x0B : 0x0F)
        for index: UInt32 in 0..<160 {
          // The latches come from three rows further down.
          steps.append(.read(address + index + 240, 1))
          write(address + index, [UInt8(truncatingIfNeeded: index * 7 + row)])
        }
      }
    }
  }

  /// Every register of the data path takes every kind of value.
  mutating func drawAtRandom(count: Int) {
    var random = SplitMix(seed: 2026)
    for _ in 0..<count {
      let address = 0xA0000 + UInt32(random.next(38400))
      switch random.next(6) {
      case 0: steps.append(.read(address, 1))
      case 1: sequencer(2, UInt8(random.next(16)))
      case 2:
        let index = UInt8([0, 1, 2, 3, 4, 7, 8][random.next(7)])
        graphics(index, UInt8(random.next(256)))
      case 3: graphics(5, UInt8(random.next(4)) | UInt8(random.next(2)) << 3)
      default: write(address, (0..<random.next(60)).map { UInt8(truncatingIfNeeded: $0 * 41) })
      }
    }
  }

  mutating func readEveryRegister() {
    for (port, count): (UInt16, UInt8) in [(0x3C4, 5), (0x3CE, 9), (0x3D4, 25)] {
      for index in 0..<count {
        out8(port, index)
        steps.append(.in8(port))
        steps.append(.in8(port + 1))
      }
    }
    steps.append(.touch(0x3DA))
    for index: UInt8 in 0..<21 {
      out8(0x3C0, index | 0x20)
      steps.append(.in8(0x3C1))
      steps.append(.touch(0x3DA))
    }
    out8(0x3C7, 10)
    steps += Array(repeating: .in8(0x3C9), count: 9)
    steps += [.in8(0x3C7), .in8(0x3CC), .in8(0x3CA), .in8(0x3B4), .in8(0x3C0)]
  }
}
