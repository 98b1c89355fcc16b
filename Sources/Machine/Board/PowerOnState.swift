import KVM

/// The kernel's part of the machine as it is after power-on, kept to return to.
struct PowerOnState {
  private let devices: KVMMachine.State
  private let cpus: [VirtualCPU.State]

  init(_ kvm: KVMMachine, _ cpus: [VirtualCPU]) throws(KVMError) {
    devices = try kvm.saveState()
    var states: [VirtualCPU.State] = []
    for cpu in cpus { states.append(try cpu.saveState()) }
    self.cpus = states
  }

  func restore(_ kvm: KVMMachine, _ cpus: [VirtualCPU]) throws(KVMError) {
    try kvm.restore(devices)
    for (cpu, state) in zip(cpus, self.cpus) { try cpu.restore(state) }
  }
}
