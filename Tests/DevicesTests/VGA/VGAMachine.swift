import DeviceModel
import Devices
import LinuxSystem

/// Our adapter on the buses of a PC, without a processor.
final class VGAMachine {
  let clock = SettableClock()
  let videoMemory: TestBytes
  let surface: TestBytes
  let vga: VGA
  private let io = Bus(name: "I/O")
  private let mmio = Bus(name: "memory")

  private var written: DirtyPages
  private(set) var scanout: Scanout?

  init(
    videoMemory: TestBytes? = nil, size: Int = 16 << 20, state: VGA.State? = nil
  ) throws {
    self.videoMemory = try videoMemory ?? TestBytes(size)
    surface = try TestBytes(VGA.minimumSurfaceSize)
    vga = try VGA(
      videoMemory: self.videoMemory, renderedSurface: surface, clock: clock, state: state)
    written = DirtyPages(pageCount: self.videoMemory.bytes.count / DirtyPages.pageSize)
    try io.map(vga.ports, name: "VGA", at: 0x3B0, size: 0x30)
    try io.map(vga.extensionPorts, name: "VBE", at: 0x1CE, size: 4)
    try mmio.map(vga.window, name: "VGA window", at: 0xA0000, size: 0x20000)

    try mmio.map(vga.registerBlock, name: "VGA BAR2", at: 0xFEBF_0000, size: 4096)
  }

  func run(_ script: RegisterScript) -> [UInt64] {
    var values: [UInt64] = []
    for step in script.steps {
      switch step {
      case .out8(let port, let value):
        io.write(address: UInt64(port), width: 1, value: UInt64(value))
      case .out16(let port, let value):
        io.write(address: UInt64(port), width: 2, value: UInt64(value))
      case .in8(let port): values.append(io.read(address: UInt64(port), width: 1))
      case .in16(let port): values.append(io.read(address: UInt64(port), width: 2))
      case .touch(let port): _ = io.read(address: UInt64(port), width: 1)
      case .write(let address, let bytes):
        for (index, byte) in bytes.enumerated() {
          mmio.write(address: UInt64(address) + UInt64(index), width: 1, value: UInt64(byte))
        }
      case .read(let address, let count):
        for index in 0..<count {
          values.append(mmio.read(address: UInt64(address) + UInt64(index), width: 1))
        }
      case .videoMemory(let offset, let bytes): writeVideoMemory(offset, bytes)
      case .mmioWrite(let offset, let width, let value):
        mmio.write(address: 0xFEBF_0000 + UInt64(offset), width: width, value: UInt64(value))
      case .mmioRead(let offset, let width):
        values.append(mmio.read(address: 0xFEBF_0000 + UInt64(offset), width: width))
      case .refresh: _ = refresh()
      }
    }
    return values
  }

  /// As a vCPU does through the linear frame buffer: the device learns of it from
  /// the dirty log only.
  func writeVideoMemory(_ offset: Int, _ bytes: [UInt8]) {
    guard !bytes.isEmpty else { return }
    UnsafeMutableRawBufferPointer(rebasing: videoMemory.bytes[offset..<offset + bytes.count])
      .copyBytes(from: bytes)
    let pages = offset / DirtyPages.pageSize...(offset + bytes.count - 1) / DirtyPages.pageSize
    for page in pages { written.words[page / 64] |= 1 << UInt64(page % 64) }
  }

  @discardableResult
  func refresh() -> ScanoutUpdate {
    let update = vga.refresh(dirtyVideoMemory: written)
    written = DirtyPages(pageCount: videoMemory.bytes.count / DirtyPages.pageSize)
    scanout = update.scanout
    return update
  }

  /// The picture after bringing it up to date.
  func picture() -> Picture { picture(of: refresh().scanout) }

  func picture(of scanout: Scanout) -> Picture {
    Picture(scanout, in: scanout.source == .rendered ? surface.bytes : videoMemory.bytes)
  }
}

final class TestBytes: SharedBytes {
  private let mapping: MemoryMapping

  init(_ count: Int) throws { mapping = try MemoryMapping(anonymous: count) }

  var bytes: UnsafeMutableRawBufferPointer { mapping.bytes }
}

/// Time that stands still until a test moves it.
final class SettableClock: DeviceClock {
  var now: UInt64 = 0
  var wallClock: (seconds: Int64, nanoseconds: UInt32) { (1_800_000_000, 0) }

  func makeTimer(_ fire: @escaping () -> Void) -> any DeviceTimer { NoTimer() }

  private final class NoTimer: DeviceTimer {
    var deadline: UInt64? { nil }
    func arm(at deadline: UInt64) {}
    func cancel() {}
  }
}
