import DeviceModel

/// What chipset registers can ask of the whole machine. `Machine` implements it.
///
/// Called under the device lock, on the vCPU thread that made the access. The
/// machine acts after the access has ended; the device may be called again before.
package protocol MachineControl: AnyObject {
  /// A hard reset of CPUs and devices.
  func requestReset(_ cause: ResetCause)

  /// The guest switched the power off (ACPI S5).
  func requestPowerOff()

  /// The guest asked for a sleeping state that there is not; it goes on awake. Told once
  /// from power-on to the next reset.
  func reportRefusedSleep(type: UInt16)
}

/// What asked for a reset: a register, or the processor's shutdown cycle, which the
/// chipset answers with INIT (82371SB, "Shutdown special cycle").
package enum ResetCause: String, Sendable, Codable {
  case resetControlRegister = "reset control register (0xCF9)"
  case systemControlPort = "system control port A (0x92)"
  case keyboardController = "keyboard controller (0x64)"
  case tripleFault = "triple fault"
}
