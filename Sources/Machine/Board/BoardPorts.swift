import CKVM
import DeviceModel
import Devices
import KVM

/// Carries what chipset registers ask of the machine to the machine.
final class ControlRelay: MachineControl {
  /// Set by the machine; device lock held, on a vCPU thread.
  var onReset: (ResetCause) -> Void = { _ in }
  var onPowerOff: () -> Void = {}
  var onTrayMove: () -> Void = {}
  var onRefusedSleep: (UInt16) -> Void = { _ in }

  func requestReset(_ cause: ResetCause) { onReset(cause) }
  func requestPowerOff() { onPowerOff() }
  func reportRefusedSleep(type: UInt16) { onRefusedSleep(type) }
}

/// Carries the speaker's tone to whoever listens.
final class ToneRelay {
  /// Told a frequency in hertz, or `nil` for silence; device lock held.
  var onTone: (Int?) -> Void = { _ in }
}

/// Where input goes: the first that wants an event gets it.
final class InputSinks {
  /// Virtio devices before the VMware pointer, then USB, and PS/2 last.
  var sinks: [any InputSink] = []

  func deliver(_ event: InputEvent) {
    sinks.first { $0.accepts(event) }?.deliver(event)
  }
}

/// The registers of the vCPU whose port access is being carried out.
final class PortCaller: CallingProcessor {
  var cpu: VirtualCPU?

  func readRegisters() -> CallingRegisters {
    guard let registers = try? cpu?.registers() else { return CallingRegisters() }
    func low(_ value: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: value) }
    return CallingRegisters(
      eax: low(registers.rax), ebx: low(registers.rbx), ecx: low(registers.rcx),
      edx: low(registers.rdx), esi: low(registers.rsi), edi: low(registers.rdi))
  }

  func writeRegisters(_ values: CallingRegisters) {
    guard let cpu, var registers = try? cpu.registers() else { return }
    // KVM's emulator forgets that IN writes RAX once registers were set beneath it;
    // where it does not, it writes this same value.
    registers.rax = UInt64(values.eax)
    registers.rbx = UInt64(values.ebx)
    registers.rcx = UInt64(values.ecx)
    registers.rdx = UInt64(values.edx)
    registers.rsi = UInt64(values.esi)
    registers.rdi = UInt64(values.edi)
    try? cpu.set(registers)
  }
}

/// A device as the board treats all of them alike.
struct BoardPart {
  let name: String
  let reset: () -> Void
  let save: (inout BoardArchive) throws -> Void

  init(_ name: String, _ device: some StatefulDevice) {
    self.name = name
    reset = { device.reset() }
    save = { try $0.store(device.saveState(), as: name) }
  }
}
