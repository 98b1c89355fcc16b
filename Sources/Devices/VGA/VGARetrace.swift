/// Where the beam is, from the clock and the CRTC's timing: input status 1.
enum VGARetrace {
  /// Bit 0: not displaying. Bit 3: vertical retrace.
  static func inputStatus1(at now: UInt64, registers: VGARegisters) -> UInt8 {
    let timing = Timing(registers)
    let line = Int(
      now % timing.frameNanoseconds * UInt64(timing.totalLines)
        / timing.frameNanoseconds)
    if line >= timing.displayedLines {
      let inRetrace = (timing.retraceStart..<timing.retraceEnd).contains(line)
      return inRetrace ? 0x09 : 0x01
    }
    let lineNanoseconds = max(timing.frameNanoseconds / UInt64(timing.totalLines), 1)
    // The last fifth of a line is the horizontal blanking interval.
    return now % lineNanoseconds * 5 >= lineNanoseconds * 4 ? 0x01 : 0x00
  }

  private struct Timing {
    // 640x480 at 60 Hz, for registers that no monitor could follow.
    var frameNanoseconds: UInt64 = 16_683_000
    var totalLines = 525
    var displayedLines = 480
    var retraceStart = 490
    var retraceEnd = 492

    init(_ registers: VGARegisters) {
      let crtc = registers.crtc
      let overflow = Int(crtc[CRTC.overflow])
      let total =
        (Int(crtc[CRTC.verticalTotal]) | (overflow & 1) << 8 | (overflow & 0x20) << 4) + 2
      let start =
        Int(crtc[CRTC.verticalRetraceStart]) | (overflow & 0x04) << 6 | (overflow & 0x80) << 2
      let end = start + max((Int(crtc[CRTC.verticalRetraceEnd]) - start) & 0x0F, 1)
      let clocking = registers.sequencer[Sequencer.clockingMode]
      let dotsPerCharacter = (clocking & 1 != 0 ? 8 : 9) * (clocking & 0x08 != 0 ? 2 : 1)
      let dots = (Int(crtc[CRTC.horizontalTotal]) + 5) * dotsPerCharacter
      let clock: UInt64 =
        registers.miscellaneousOutput >> 2 & 3 == 1 ? 28_322_000 : 25_175_000
      let frame = UInt64(dots * total) * 1_000_000_000 / clock
      let lines = registers.displayedLines
      guard (6_000_000...40_000_000).contains(frame), lines <= start, end <= total else { return }
      frameNanoseconds = frame
      totalLines = total
      displayedLines = lines
      retraceStart = start
      retraceEnd = end
    }
  }
}
