import DeviceModel

/// The adapter behind its bus faces: registers, memory and painting.
///
/// Owned by the device lock. Everything that a guest can write is either masked
/// when it is stored or checked when it is used.
final class VGACore {
  private var registers: VGARegisters
  private var vbe: BochsVBE
  /// The guest asked for big-endian true colour (extended register 604h).
  var isBigEndian: Bool { didSet { accessed() } }
  private var memory: VideoMemory
  private let surface: RenderedSurface
  private let clock: any DeviceClock

  /// What the monitor says of itself.
  private(set) var edid: EDID

  private var text = TextRenderer()
  private var graphics = GraphicsRenderer()
  private var scanout = Scanout(
    source: .rendered, offset: 0, stride: 640 * 4, width: 640, height: 480, format: .xrgb8888)
  /// What is on the screen; nil makes the next refresh start afresh.
  private var kind: Kind?

  private enum Kind { case blank, text, indexed, linear }

  /// See `DisplayAdapter`.
  var onNextAccess: (() -> Void)?

  init(
    memory: VideoMemory, surface: RenderedSurface, clock: any DeviceClock,
    state: VGA.State?
  ) {
    self.memory = memory
    self.surface = surface
    self.clock = clock
    registers = state?.registers ?? VGARegisters()
    vbe = state?.vbe ?? BochsVBE()
    isBigEndian = state?.isBigEndian ?? false
    edid = state?.monitor.map { EDID(preferred: $0) } ?? EDID()
    // A state from elsewhere may claim what this much memory does not allow.
    if vbe.isEnabled { vbe.makeValid(videoMemorySize: memory.count) }
  }

  func saveState(pci: PCIFunction.State) -> VGA.State {
    VGA.State(
      pci: pci, registers: registers, vbe: vbe, isBigEndian: isBigEndian,
      monitor: edid.preferred)
  }

  func resizeMonitor(_ width: Int, _ height: Int) {
    edid = EDID(
      preferred: .init(width: width, height: height).fitting(bytes: memory.count / 2))
  }

  func reset() {
    registers = VGARegisters()
    vbe = BochsVBE()
    isBigEndian = false
    kind = nil
    accessed()
  }

  private func accessed() {
    guard let tell = onNextAccess else { return }
    onNextAccess = nil
    tell()
  }

  // MARK: Ports

  func readPort(offset: UInt16) -> UInt8 {
    let port = 0x3B0 &+ offset
    guard (port == 0x3BA || port == 0x3DA) && registers.decodes(port) else {
      return registers.read(offset: offset)
    }
    registers.attributeFlipFlop = false
    return VGARetrace.inputStatus1(at: clock.now, registers: registers)
  }

  func writePort(offset: UInt16, value: UInt8) {
    accessed()
    registers.write(offset: offset, value: value)
    if vbe.isEnabled { programGraphicsMode() }
  }

  var vbeIndex: UInt16 {
    get { vbe.index }
    set { vbe.index = newValue }
  }

  func readVBE(_ register: UInt16) -> UInt16 {
    vbe.read(register, videoMemorySize: memory.count)
  }

  func writeVBE(_ register: UInt16, value: UInt16) {
    accessed()
    let effect = vbe.write(register, value: value, videoMemorySize: memory.count)
    if register == BochsVBE.Index.enable {
      registers.dac.has8Bits = value & BochsVBE.Enable.dac8Bits != 0
    }
    switch effect {
    case .none, .disabled: break
    case .modeChanged: programGraphicsMode()
    case .modeSet(let clearBytes):
      memory.clear(count: clearBytes)
      programGraphicsMode()
    }
  }

  /// Sets the VGA registers that describe the extended mode, for software that
  /// looks at them or goes back by hand.
  private func programGraphicsMode() {
    let control = registers.graphics[Graphics.miscellaneous]
    registers.graphics[Graphics.miscellaneous] = control & ~0x0C | 0x05
    let shift: UInt8 = vbe.isPlanar ? 0x00 : 0x40
    registers.graphics[Graphics.mode] = registers.graphics[Graphics.mode] & ~0x60 | shift
    let last = Int(vbe.height) - 1
    registers.crtc[CRTC.modeControl] |= 0x03
    registers.crtc[CRTC.offset] = UInt8(truncatingIfNeeded: vbe.stride >> 3)
    registers.crtc[CRTC.endHorizontalDisplay] = UInt8(
      truncatingIfNeeded: (vbe.width >> 3) &- 1)
    registers.crtc[CRTC.verticalDisplayEnd] = UInt8(truncatingIfNeeded: last)
    let high = UInt8(truncatingIfNeeded: (last >> 7) & 0x02 | (last >> 3) & 0x40)
    // No double scan, no split before line 1023.
    registers.crtc[CRTC.overflow] = registers.crtc[CRTC.overflow] & ~0x42 | high | 0x10
    registers.crtc[CRTC.lineCompare] = 0xFF
    registers.crtc[CRTC.maximumScanLine] = registers.crtc[CRTC.maximumScanLine] & ~0x9F | 0x40
  }

  // MARK: Legacy window

  func readWindow(offset: Int) -> UInt8 {
    LegacyWindow.read(offset: offset, registers: &registers, vbe: vbe, memory: memory)
  }

  func writeWindow(offset: Int, value: UInt8) {
    accessed()
    LegacyWindow.write(
      offset: offset, value: value, registers: registers, vbe: vbe, memory: &memory)
  }

  // MARK: The picture

  func refresh(dirtyVideoMemory: DirtyPages) -> ScanoutUpdate {
    let pages = memory.takeDirty(joinedWith: dirtyVideoMemory)
    let picture = VGAPicture(registers: registers, vbe: vbe, isBigEndian: isBigEndian)
    switch picture {
    case .blank: return showBlank()
    case .text(let geometry):
      let isNew = present(
        surface.scanout(width: geometry.width, height: geometry.lines), as: .text)
      let damage = text.render(
        geometry, registers: registers, memory: &memory, pages: pages, surface: surface,
        now: clock.now)
      return ScanoutUpdate(scanout: scanout, damage: isNew ? [whole] : damage)
    case .indexed(let geometry):
      let isNew = present(
        surface.scanout(width: geometry.width, height: geometry.lines), as: .indexed)
      let damage = graphics.render(
        geometry, registers: registers, memory: memory, pages: pages, surface: surface)
      return ScanoutUpdate(scanout: scanout, damage: isNew ? [whole] : damage)
    case .linear(let linear):
      let isNew = present(linear, as: .linear)
      let damage = isNew ? [whole] : linear.damage(in: pages)
      return ScanoutUpdate(scanout: scanout, damage: damage)
    }
  }

  private var whole: Rect { Rect(x: 0, y: 0, width: scanout.width, height: scanout.height) }

  /// A screen switched off keeps its size and turns black.
  private func showBlank() -> ScanoutUpdate {
    let isNew = present(
      surface.scanout(width: scanout.width, height: scanout.height), as: .blank)
    if isNew { surface.clear(width: scanout.width, height: scanout.height) }
    return ScanoutUpdate(scanout: scanout, damage: isNew ? [whole] : [])
  }

  /// - Returns: whether the viewer has to take the picture as a new one.
  private func present(_ scanout: Scanout, as kind: Kind) -> Bool {
    if self.kind == kind && self.scanout == scanout { return false }
    self.kind = kind
    self.scanout = scanout
    text.invalidate()
    graphics.invalidate()
    return true
  }
}
