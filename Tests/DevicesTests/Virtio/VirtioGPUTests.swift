import DeviceModel
import Devices
import TestSupport
import Testing

@Suite("virtio-gpu")
struct VirtioGPUTests {
  @Test("tells of its monitors, and of the size that a viewer wants")
  func monitors() throws {
    let card = try GraphicsBench(outputs: 2)
    #expect(card.configuration == [0, 0, 2, 0])
    let info = card.command(0x100)
    #expect(info.type == 0x1101 && info.body.count == 16 * 24)
    #expect(info.words(0..<12) == [0, 0, 1024, 768, 1, 0, 1024, 0, 1024, 768, 1, 0])
    #expect(info.words(12..<96).allSatisfy { $0 == 0 })

    card.bench.messages.sent = []
    card.gpu.resize(width: 3001, height: 900)
    #expect(card.configuration == [1, 0, 2, 0])
    #expect(card.bench.messages.sent == [0], "the configuration's vector")
    #expect(card.command(0x100).words(0..<12) == [0, 0, 1501, 900, 1, 0, 1501, 0, 1500, 900, 1, 0])
    card.bench.transport.write(offset: 0x2004, width: 4, value: 1)
    #expect(card.configuration == [0, 0, 2, 0])
    card.gpu.resize(width: 3001, height: 900)
    #expect(card.configuration[0] == 0, "the same size is no news")

    let edid = card.command(0x10A, [1, 0])
    #expect(edid.type == 0x1104 && edid.words(0..<2) == [128, 0])
    let block = Array(edid.body[8..<136])
    #expect(block == EDID(preferred: .init(width: 1500, height: 900)).bytes)
    #expect(card.command(0x10A, [2, 0]).type == 0x1202)
  }

  @Test("shows what the driver transferred, and tells of what it flushed")
  func picture() throws {
    let card = try GraphicsBench()
    var changes = 0
    card.screen.onNextAccess = { changes += 1 }
    #expect(card.screen.refresh(dirtyVideoMemory: card.clean).scanout.source == .rendered)
    let pixels = card.fill(64 * 32)
    #expect(card.create(1, width: 64, height: 32) == 0x1100)
    #expect(card.attach(1, [(GraphicsBench.pixels, 64 * 32 * 4)]) == 0x1100)
    #expect(card.transfer(1, 0, 0, 64, 32) == 0x1100)
    #expect(card.setScanout(0, 1, 8, 4, 40, 20) == 0x1100)
    #expect(changes == 1)
    let first = card.screen.refresh(dirtyVideoMemory: card.clean)
    #expect(first.scanout.source == .graphicsMemory)
    #expect(first.scanout.width == 40 && first.scanout.height == 20)
    #expect(first.damage == [Rect(x: 0, y: 0, width: 40, height: 20)])
    #expect(card.picture(first.scanout) == card.part(pixels, 64, 8, 4, 40, 20))
    #expect(card.screen.refresh(dirtyVideoMemory: card.clean).damage.isEmpty)

    card.screen.onNextAccess = { changes += 1 }
    #expect(card.flush(1, 0, 0, 12, 5) == 0x1100)
    #expect(changes == 2)
    #expect(
      card.screen.refresh(dirtyVideoMemory: card.clean).damage
        == [Rect(x: 0, y: 0, width: 4, height: 1)])
    #expect(card.flush(1, 50, 30, 4, 2) == 0x1100)
    #expect(card.screen.refresh(dirtyVideoMemory: card.clean).damage.isEmpty, "not on the screen")
  }

  @Test("takes every format of the specification", arguments: [1, 2, 3, 4, 67, 68, 121, 134])
  func formats(format: UInt32) throws {
    let card = try GraphicsBench()
    // Which byte of a pixel is blue, green, red; after the names in the specification.
    let orders: [UInt32: [Int]] = [
      1: [0, 1, 2], 2: [0, 1, 2], 3: [3, 2, 1], 4: [3, 2, 1], 67: [2, 1, 0], 134: [2, 1, 0],
      68: [1, 2, 3], 121: [1, 2, 3],
    ]
    let order = try #require(orders[format])
    let source = card.fill(16)
    _ = card.create(1, format: format, width: 4, height: 4)
    _ = card.attach(1, [(GraphicsBench.pixels, 64)])
    #expect(card.transfer(1, 0, 0, 4, 4) == 0x1100)
    _ = card.setScanout(0, 1, 0, 0, 4, 4)
    let shown = card.picture(card.screen.refresh(dirtyVideoMemory: card.clean).scanout)
    for pixel in 0..<16 {
      let bytes = order.map { source[pixel * 4 + $0] }
      #expect(Array(shown[pixel * 4..<pixel * 4 + 3]) == bytes)
    }
  }

  @Test("gathers a part of a picture from scattered memory")
  func scattered() throws {
    let card = try GraphicsBench()
    let source = card.fill(10 * 10)
    _ = card.create(1, width: 10, height: 10)
    // Pieces that end within pixels, the last first in memory.
    let pieces = [(300, 101), (0, 3), (101, 199), (3, 98)]
    var gathered: [UInt8] = []
    for (start, count) in pieces {
      gathered += source[start..<start + count - (start == 300 ? 1 : 0)]
    }
    _ = card.attach(
      1, pieces.map { (GraphicsBench.pixels + UInt64($0.0), $0.0 == 300 ? 100 : $0.1) })
    #expect(card.transfer(1, 2, 3, 5, 4, offset: UInt64((3 * 10 + 2) * 4)) == 0x1100)
    _ = card.setScanout(0, 1, 2, 3, 5, 4)
    let shown = card.picture(card.screen.refresh(dirtyVideoMemory: card.clean).scanout)
    #expect(shown == card.part(gathered, 10, 2, 3, 5, 4))
    #expect(card.transfer(1, 0, 0, 10, 10, offset: 4) == 0x1205, "beyond its memory")
    #expect(card.bench.needsReset == false)
  }

  @Test("puts several outputs side by side")
  func outputs() throws {
    let card = try GraphicsBench(outputs: 2)
    let pixels = card.fill(30 * 10)
    _ = card.create(7, width: 30, height: 10)
    _ = card.attach(7, [(GraphicsBench.pixels, 30 * 10 * 4)])
    _ = card.transfer(7, 0, 0, 30, 10)
    _ = card.setScanout(0, 7, 0, 0, 20, 10)
    _ = card.setScanout(1, 7, 20, 2, 10, 6)
    let update = card.screen.refresh(dirtyVideoMemory: card.clean)
    #expect(update.scanout.width == 30 && update.scanout.height == 10)
    let shown = card.picture(update.scanout)
    #expect(card.part(shown, 30, 0, 0, 20, 10) == card.part(pixels, 30, 0, 0, 20, 10))
    #expect(card.part(shown, 30, 20, 0, 10, 6) == card.part(pixels, 30, 20, 2, 10, 6))
    #expect(card.part(shown, 30, 20, 6, 10, 4).allSatisfy { $0 == 0 })

    let other = card.fill(30 * 10, seed: 99)
    _ = card.transfer(7, 22, 3, 2, 2, offset: UInt64((3 * 30 + 22) * 4))
    _ = card.flush(7, 22, 3, 2, 2)
    let second = card.screen.refresh(dirtyVideoMemory: card.clean)
    #expect(second.damage == [Rect(x: 22, y: 1, width: 2, height: 2)])
    #expect(
      card.part(card.picture(second.scanout), 30, 22, 1, 2, 2)
        == card.part(other, 30, 22, 3, 2, 2))

    _ = card.setScanout(0, 0, 0, 0, 0, 0)
    let single = card.screen.refresh(dirtyVideoMemory: card.clean).scanout
    #expect(single.width == 10 && single.height == 6)
  }

  @Test("turns black when nothing is shown, and is the VGA again after a reset")
  func blank() throws {
    let card = try GraphicsBench()
    _ = card.fill(16 * 16)
    _ = card.create(1, width: 16, height: 16)
    _ = card.attach(1, [(GraphicsBench.pixels, 1024)])
    _ = card.transfer(1, 0, 0, 16, 16)
    _ = card.setScanout(0, 1, 0, 0, 16, 16)
    let shown = card.screen.refresh(dirtyVideoMemory: card.clean).scanout
    #expect(card.command(0x102, [1, 0]).type == 0x1100)
    let black = card.screen.refresh(dirtyVideoMemory: card.clean)
    #expect(black.scanout.width == 16 && black.scanout.height == 16)
    #expect(!black.damage.isEmpty)
    #expect(card.picture(black.scanout).allSatisfy { $0 == 0 })
    #expect(card.picture(shown).allSatisfy { $0 == 0 }, "what was freed is forgotten")
    card.bench.transport.reset()
    #expect(card.screen.refresh(dirtyVideoMemory: card.clean).scanout.source == .rendered)
  }

  @Test("gives the pointer's picture to viewers, and hides it")
  func cursor() throws {
    let card = try GraphicsBench()
    var told: [CursorImage] = []
    card.gpu.onCursor = { told.append($0) }
    let pixels = card.fill(64 * 64)
    _ = card.create(3, width: 64, height: 64)
    _ = card.attach(3, [(GraphicsBench.pixels, 64 * 64 * 4)])
    _ = card.transfer(3, 0, 0, 64, 64)
    card.point(0x300, [0, 10, 20, 0, 3, 5, 6, 0])
    #expect(told.last?.width == 64 && told.last?.hotX == 5 && told.last?.hotY == 6)
    #expect(told.last?.pixels == pixels)
    card.point(0x301, [0, 11, 21, 0, 3, 5, 6, 0])
    #expect(told.count == 1, "moving is the viewer's")
    card.point(0x300, [9, 0, 0, 0, 3, 0, 0, 0])
    #expect(told.count == 1, "no such output")
    card.point(0x300, [0, 0, 0, 0, 3, 900, 900, 0])
    #expect(told.last?.hotX == 63 && told.last?.hotY == 63)
    card.point(0x300, [0, 0, 0, 0, 0, 0, 0, 0])
    #expect(told.last == .hidden)
  }

  @Test("answers mistakes with the specification's errors, and goes on")
  func mistakes() throws {
    let card = try GraphicsBench()
    #expect(card.command(0x999).type == 0x1200)
    #expect(card.create(0, width: 8, height: 8) == 0x1203)
    #expect(card.create(1, format: 5, width: 8, height: 8) == 0x1205)
    #expect(card.create(1, width: 0, height: 8) == 0x1205)
    #expect(card.create(1, width: 8193, height: 8) == 0x1205)
    #expect(card.create(1, width: 8192, height: 8192) == 0x1201)
    #expect(card.create(1, width: 8, height: 8) == 0x1100)
    #expect(card.create(1, width: 8, height: 8) == 0x1203, "there is one")
    #expect(card.attach(2, [(GraphicsBench.pixels, 256)]) == 0x1203)
    #expect(card.attach(1, [(.max - 10, 256)]) == 0x1205, "not RAM")
    #expect(card.transfer(1, 0, 0, 8, 8) == 0x1205, "no memory attached")
    #expect(card.attach(1, [(GraphicsBench.pixels, 255)]) == 0x1100)
    #expect(card.transfer(1, 0, 0, 8, 8) == 0x1205, "a byte short")
    #expect(card.transfer(1, 0, 0, 9, 8) == 0x1205)
    #expect(card.transfer(1, .max, 0, 2, 8) == 0x1205)
    #expect(card.transfer(1, 0, 0, 1, 1, offset: .max) == 0x1205)
    #expect(card.setScanout(1, 1, 0, 0, 8, 8) == 0x1202)
    #expect(card.setScanout(0, 9, 0, 0, 8, 8) == 0x1203)
    #expect(card.setScanout(0, 1, 1, 0, 8, 8) == 0x1205)
    #expect(card.flush(9, 0, 0, 8, 8) == 0x1203)
    #expect(card.flush(1, 0, 0, 8, 9) == 0x1205)
    #expect(card.command(0x107, [9, 0]).type == 0x1203)
    #expect(card.command(0x107, [1, 0]).type == 0x1100)
    #expect(card.command(0x101, [4]).type == 0x1205, "too short")
    let fenced = card.command(0x100, flags: 1, fence: 0x1234_5678_9ABC)
    #expect(fenced.flags == 1 && fenced.fence == 0x1234_5678_9ABC)
    #expect(card.command(0x100, flags: 0, fence: 7).fence == 0)
    #expect(!card.bench.needsReset)
  }

  @Test("gives memory back, so that what was freed can be used again")
  func memory() throws {
    let card = try GraphicsBench()
    let side = 512
    for round in 0..<50 {
      #expect(card.create(1, width: side, height: side) == 0x1100, "\(round)")
      #expect(card.create(2, width: side, height: side) == 0x1100)
      #expect(card.command(0x102, [1, 0]).type == 0x1100)
      #expect(card.create(3, width: side, height: side) == 0x1100)
      #expect(card.create(4, width: side, height: side * 3) == 0x1201)
      for identifier: UInt32 in [2, 3] {
        #expect(card.command(0x102, [identifier, 0]).type == 0x1100)
      }
    }
    #expect(card.gpu.usedMemory.isEmpty)
  }

  @Test("goes on from a saved state with the same picture and pointer")
  func state() throws {
    let card = try GraphicsBench(outputs: 2)
    _ = card.fill(32 * 32)
    _ = card.create(5, width: 32, height: 32)
    _ = card.attach(5, [(GraphicsBench.pixels, 4096)])
    _ = card.transfer(5, 0, 0, 32, 32)
    _ = card.setScanout(0, 5, 0, 0, 16, 16)
    _ = card.setScanout(1, 5, 16, 16, 16, 16)
    card.point(0x300, [0, 0, 0, 0, 5, 1, 2, 0])
    let before = card.picture(card.screen.refresh(dirtyVideoMemory: card.clean).scanout)
    let copy = try GraphicsBench(continuing: card)
    let after = copy.screen.refresh(dirtyVideoMemory: card.clean)
    #expect(copy.picture(after.scanout) == before)
    #expect(copy.gpu.cursor == card.gpu.cursor && !copy.gpu.cursor.isHidden)
    #expect(copy.transfer(5, 0, 0, 32, 32) == 0x1100, "its memory is attached still")
  }
}

/// A graphics card, its driver's end, and what is behind it.
private final class GraphicsBench {
  static let pixels: UInt64 = 0x8_0000
  private static let request: UInt64 = 0x4_0000
  private static let answer: UInt64 = 0x6_0000

  struct Answer {
    let type: UInt32
    let flags: UInt32
    let fence: UInt64
    let body: [UInt8]

    func words(_ range: Range<Int>) -> [UInt32] {
      range.map { LittleEndian.number(body, at: $0 * 4, UInt32.self) }
    }
  }

  let memory: TestBytes
  let gpu: VirtioGPU
  let screen: VirtioVGA
  let bench: VirtioBench
  private let vga: VGAMachine
  private let control: DriverQueue
  private let pointer: DriverQueue

  init(outputs: Int = 1) throws {
    memory = try TestBytes(4 << 20)
    gpu = VirtioGPU(memory: memory, outputs: outputs, state: nil)
    bench = VirtioBench(gpu)
    vga = try VGAMachine()
    screen = VirtioVGA(vga.vga, gpu)
    bench.negotiate(1 << 32 | 1 << 1)
    bench.enableMessages(vectors: 3)
    bench.set(VirtioBench.configurationVector, 2, 0)
    control = DriverQueue(bench, 0, size: 8, packed: false)
    pointer = DriverQueue(bench, 1, size: 8, packed: false, base: 0x2_0000)
    bench.status = 0x0F
  }

  init(continuing other: GraphicsBench) throws {
    memory = try TestBytes(4 << 20)
    gpu = VirtioGPU(
      memory: memory, outputs: 2, state: other.gpu.saveState())
    bench = VirtioBench(gpu, memory: other.bench.memory, state: other.bench.transport.saveState())
    vga = try VGAMachine()
    screen = VirtioVGA(vga.vga, gpu)
    control = other.control.continued(on: bench)
    pointer = other.pointer.continued(on: bench)
    // As a machine does: memory is filled after its devices were built.
    for range in gpu.usedMemory {
      memory.bytes[range].copyBytes(from: other.memory.bytes[range])
    }
    bench.transport.resume()
  }

  var clean: DirtyPages { DirtyPages(pageCount: 256) }

  var configuration: [UInt32] {
    (0..<4).map {
      UInt32(truncatingIfNeeded: bench.transport.read(offset: 0x2000 + $0 * 4, width: 4))
    }
  }

  private func write(_ bytes: [UInt8], at address: UInt64) {
    bench.memory.bytes.replaceSubrange(Int(address)..<Int(address) + bytes.count, with: bytes)
  }

  /// Pixels without a pattern, in the guest's memory.
  func fill(_ count: Int, seed: Int = 1) -> [UInt8] {
    let bytes = (0..<count * 4).map { UInt8(truncatingIfNeeded: ($0 &+ seed) &* 167 ^ $0 >> 7) }
    write(bytes, at: Self.pixels)
    return bytes
  }

  private func header(_ type: UInt32, _ words: [UInt32], flags: UInt32, fence: UInt64) -> [UInt8] {
    LittleEndian.bytes(type) + LittleEndian.bytes(flags) + LittleEndian.bytes(fence)
      + Array(repeating: 0, count: 8) + words.flatMap { LittleEndian.bytes($0) }
  }

  func command(_ type: UInt32, _ words: [UInt32] = [], flags: UInt32 = 0, fence: UInt64 = 0)
    -> Answer
  {
    let bytes = header(type, words, flags: flags, fence: fence)
    write(bytes, at: Self.request)
    control.add([.readable(Self.request, bytes.count), .writable(Self.answer, 2048)])
    control.kick()
    let count = Int(control.takeUsed()?.written ?? 0)
    let answer = Array(bench.memory.bytes[Int(Self.answer)..<Int(Self.answer) + count])
    return Answer(
      type: LittleEndian.number(answer, at: 0, UInt32.self),
      flags: LittleEndian.number(answer, at: 4, UInt32.self),
      fence: LittleEndian.number(answer, at: 8, UInt64.self), body: Array(answer.dropFirst(24)))
  }

  func point(_ type: UInt32, _ words: [UInt32]) {
    let bytes = header(type, words, flags: 0, fence: 0)
    write(bytes, at: Self.request)
    pointer.add([.readable(Self.request, bytes.count)])
    pointer.kick()
    #expect(pointer.takeUsed()?.written == 0)
  }

  func create(_ identifier: UInt32, format: UInt32 = 2, width: Int, height: Int) -> UInt32 {
    command(0x101, [identifier, format, UInt32(width), UInt32(height)]).type
  }

  func attach(_ identifier: UInt32, _ pieces: [(UInt64, Int)]) -> UInt32 {
    let entries = pieces.flatMap { address, count -> [UInt32] in
      [UInt32(truncatingIfNeeded: address), UInt32(address >> 32), UInt32(count), 0]
    }
    return command(0x106, [identifier, UInt32(pieces.count)] + entries).type
  }

  func transfer(
    _ identifier: UInt32, _ x: UInt32, _ y: UInt32, _ width: UInt32, _ height: UInt32,
    offset: UInt64 = 0
  ) -> UInt32 {
    command(
      0x105,
      [
        x, y, width, height, UInt32(truncatingIfNeeded: offset), UInt32(offset >> 32), identifier,
        0,
      ]
    ).type
  }

  func setScanout(
    _ output: UInt32, _ identifier: UInt32, _ x: UInt32, _ y: UInt32, _ width: UInt32,
    _ height: UInt32
  ) -> UInt32 {
    command(0x103, [x, y, width, height, output, identifier]).type
  }

  func flush(_ identifier: UInt32, _ x: UInt32, _ y: UInt32, _ width: UInt32, _ height: UInt32)
    -> UInt32
  {
    command(0x104, [x, y, width, height, identifier, 0]).type
  }

  /// The scanned-out bytes, rows without gaps.
  func picture(_ scanout: Scanout) -> [UInt8] {
    (0..<scanout.height).flatMap { row in
      let start = scanout.offset + row * scanout.stride
      return Array(memory.bytes[start..<start + scanout.width * 4])
    }
  }

  func part(_ pixels: [UInt8], _ stride: Int, _ x: Int, _ y: Int, _ width: Int, _ height: Int)
    -> [UInt8]
  {
    (y..<y + height).flatMap { row -> ArraySlice<UInt8> in
      let start = (row * stride + x) * 4
      return pixels[start..<start + width * 4]
    }
  }
}
